// Subscribe with one of the clients people use, and print one line of JSON per result.
//
//   node subscribers.mjs <client> <url> <options as JSON>
//
// client: ws (graphql-ws), sse (graphql-sse), apollo (Apollo Client over multipart), apollo-ws (Apollo Client over graphql-ws).
// options: query, variables, headers, payload (of connection_init), total (results to print before it ends),
//   each (results to take before it hangs up and comes back with `since` of the last one; absent for never), cursor (its path).
import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";
import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client/core/index.js";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";

globalThis.WebSocket ??= WebSocket; // Apollo compares with the browser's own
const [client, url, said] = process.argv.slice(2);
const options = JSON.parse(said);
const socketUrl = url.replace(/^http/, "ws");

function socketClient() {
  class Socket extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { headers: options.headers ?? {} });
    }
  }
  return createWs({ url: socketUrl, webSocketImpl: Socket, connectionParams: options.payload, retryAttempts: 0 });
}

function apollo(link) {
  return new ApolloClient({ link, cache: new InMemoryCache(), defaultOptions: { watchQuery: { fetchPolicy: "no-cache" } } });
}

// Each returns [subscribe(variables, sink) → stop, end].
const clients = {
  ws() {
    const made = socketClient();
    return [(variables, sink) => made.subscribe({ query: options.query, variables }, sink), () => made.dispose()];
  },
  sse() {
    const made = createSse({ url, headers: options.headers, retryAttempts: 0 });
    return [(variables, sink) => made.subscribe({ query: options.query, variables }, sink), () => made.dispose()];
  },
  apollo() {
    const made = apollo(new HttpLink({ uri: url, fetch, headers: options.headers }));
    return [subscribing(made), () => made.stop()];
  },
  "apollo-ws"() {
    const socket = socketClient();
    const made = apollo(new GraphQLWsLink(socket));
    return [subscribing(made), () => (made.stop(), socket.dispose())];
  },
};

function subscribing(made) {
  return (variables, sink) => {
    const following = made.subscribe({ query: gql(options.query), variables }).subscribe(sink);
    return () => following.unsubscribe();
  };
}

// Take at most `most` results; resolves to the cursor of the last one, or to undefined when the subscription has ended.
function take(variables, most) {
  return new Promise((resolve, reject) => {
    const [subscribe, end] = clients[client]();
    let taken = 0;
    let cursor;
    let stop = () => {};
    const leave = (result) => {
      stop();
      end();
      resolve(result);
    };
    stop = subscribe(variables, {
      next(result) {
        if (taken >= most) return;
        taken += 1;
        console.log(JSON.stringify(result.data ?? result));
        cursor = Object.values(result.data ?? {})[0]?.cursor;
        if (taken === most) setImmediate(() => leave(cursor));
      },
      error(error) {
        reject(error);
      },
      complete() {
        resolve(undefined);
      },
    });
  });
}

function told(error) {
  if (Array.isArray(error)) return { errors: error };
  if (error?.networkError) return told(error.networkError); // Apollo's wrapping of what its link said
  if (error?.graphQLErrors?.length) return { errors: error.graphQLErrors };
  if (error?.protocolErrors?.length) return { errors: error.protocolErrors };
  return { code: error?.code, status: error?.response?.status, message: String(error?.reason || error?.message || error) };
}

try {
  let left = options.total;
  let variables = options.variables ?? {};
  while (left > 0) {
    const most = Math.min(options.each ?? left, left);
    const cursor = await take(variables, most);
    if (cursor === undefined) break;
    left -= most;
    variables = { ...variables, since: cursor };
  }
  console.log(JSON.stringify("end"));
  process.exit(0);
} catch (error) {
  console.log(JSON.stringify(told(error)));
  process.exit(1);
}
