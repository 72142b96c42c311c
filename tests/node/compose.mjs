// Compose subgraphs given as files under Federation 2; print the errors, or the names of the types of the supergraph.
import { readFileSync } from "node:fs";
import { composeServices } from "@apollo/composition";
import { parse } from "graphql";

const services = process.argv.slice(2).map((file, at) => ({ name: `s${at}`, url: `http://s${at}`, typeDefs: parse(readFileSync(file, "utf8")) }));
const result = composeServices(services);
if (result.errors) {
  for (const error of result.errors) console.log(`${error.extensions?.code}: ${error.message}`);
  process.exit(1);
}
console.log([...result.schema.types()].map((type) => type.name).join(" "));
