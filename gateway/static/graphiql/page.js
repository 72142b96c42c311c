"use strict";
(function () {
  var root = document.getElementById("graphiql");
  var key = new URLSearchParams(location.hash.slice(1)).get("key");
  var headers = key ? { Authorization: "Bearer " + key } : {};
  var once = GraphiQL.createFetcher({ url: location.pathname, headers: headers });

  // The editor's parsed document and the operation's name come a little later than a change of tab: the text decides.
  function operationIn(text, name) {
    var plain = text.replace(/#.*/g, "");
    var named = name && plain.match(new RegExp("\\b(query|mutation|subscription)\\s+" + name + "\\b"));
    var first = plain.match(/^\s*(query|mutation|subscription)\b/);
    return { name: named ? name : undefined, kind: named ? named[1] : first ? first[1] : "query" };
  }

  // Server-sent events by fetch: an EventSource could send no headers.
  async function* events(asked, more, stopping) {
    var answer = await fetch(location.pathname, {
      method: "POST",
      headers: Object.assign({ "content-type": "application/json", accept: "text/event-stream, application/json" }, headers, more),
      body: JSON.stringify(asked),
      signal: stopping.signal,
    });
    if (!(answer.headers.get("content-type") || "").startsWith("text/event-stream")) {
      yield await answer.json();
      return;
    }
    var reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    var text = "";
    for (;;) {
      var part = await reader.read();
      if (part.done) return;
      text += part.value;
      var messages = text.split("\n\n");
      text = messages.pop();
      for (var message of messages) {
        if (message.includes("event: complete")) return;
        var data = message.split("\n").find((line) => line.startsWith("data: "));
        if (data) yield JSON.parse(data.slice(6));
      }
    }
  }

  // The stop button calls `return`, which a generator would answer only after the next event.
  function followed(asked, more) {
    var stopping = new AbortController();
    var steps = events(asked, more, stopping);
    return {
      [Symbol.asyncIterator]: function () {
        return this;
      },
      next: function () {
        return steps.next().catch(function (error) {
          if (!stopping.signal.aborted) throw error;
          return { done: true, value: undefined };
        });
      },
      return: function () {
        stopping.abort();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  function fetcher(asked, options) {
    var meant = operationIn(asked.query, asked.operationName);
    var said = Object.assign({}, asked, { operationName: meant.name });
    return meant.kind === "subscription" ? followed(said, (options && options.headers) || {}) : once(said, options);
  }

  ReactDOM.createRoot(root).render(
    React.createElement(GraphiQL, {
      fetcher: fetcher,
      defaultTabs: JSON.parse(root.dataset.tabs),
      defaultEditorToolsVisibility: true,
      shouldPersistHeaders: false,
    })
  );
})();
