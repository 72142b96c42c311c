"use strict";
(function () {
  var root = document.getElementById("graphiql");
  var key = new URLSearchParams(location.hash.slice(1)).get("key");
  var headers = key ? { Authorization: "Bearer " + key } : {};
  var fetcher = GraphiQL.createFetcher({ url: location.pathname, headers: headers });
  ReactDOM.createRoot(root).render(
    React.createElement(GraphiQL, {
      fetcher: fetcher,
      defaultTabs: JSON.parse(root.dataset.tabs),
      defaultEditorToolsVisibility: true,
      shouldPersistHeaders: false,
    })
  );
})();
