// Drive Pipedrive's own client against an address; print what it got as one line of JSON.
import pipedrive from "pipedrive";

const { v1, v2 } = pipedrive;
const [address, apiKey, clientId, clientSecret, refreshToken, email] = process.argv.slice(2);
const configuration = new v2.Configuration({ apiKey, basePath: `${address}/api/v2` });
const persons = new v2.PersonsApi(configuration);
const organizations = new v2.OrganizationsApi(configuration);
const deals = new v2.DealsApi(configuration);
const users = new v1.UsersApi(new v1.Configuration({ apiKey, basePath: `${address}/api/v1` }));
const participants = new v1.DealsApi(new v1.Configuration({ apiKey, basePath: `${address}/api/v1` }));
const burst = () => new Promise((resolve) => setTimeout(resolve, 2100));
const refused = (call) => call.then(() => null, (error) => error);
const got = {};

got.pages = [];
for (let cursor; ; ) {
  const page = await persons.getPersons({ limit: 25, sort_by: "add_time", ...(cursor ? { cursor } : {}) });
  got.pages.push(page.data.map((each) => each.id));
  cursor = page.additional_data.next_cursor;
  if (!cursor) break;
}
const found = await persons.searchPersons({ term: email, fields: "email", exact_match: true });
got.found = found.data.items.map(({ item }) => item.name);
const id = found.data.items[0].item.id;
got.person = (await persons.getPerson({ id, include_option_labels: true, include_fields: "open_deals_count" })).data;
got.several = (await persons.getPersons({ ids: `${id},1` })).data.map((each) => each.id);
got.deals = (await deals.getDeals({ person_id: id, sort_by: "update_time", sort_direction: "desc" })).data;
got.fields = (await new v2.PersonFieldsApi(configuration).getPersonFields({})).data;
got.stages = (await new v2.StagesApi(configuration).getStages({ pipeline_id: 1 })).data.map((each) => each.name);
got.me = (await users.getCurrentUser()).data;
await burst();

const organization = (await organizations.addOrganization({ AddOrganizationRequest: { name: "Client Ltd" } })).data;
const tier = got.fields.find((each) => each.field_name === "Loyalty tier");
const person = (
  await persons.addPerson({
    AddPersonRequest: {
      name: "Grace Hopper", org_id: organization.id, emails: [{ value: "grace@client.example", primary: true, label: "work" }],
      custom_fields: { [tier.field_code]: tier.options[0].id },
    },
  })
).data;
const deal = (await deals.addDeal({ AddDealRequest: { title: "Compiler", value: 1250.5, currency: "EUR", person_id: person.id } })).data;
await participants.addDealParticipant({ id: deal.id, AddDealParticipantRequest: { person_id: id } });
got.updated = (await deals.updateDeal({ id: deal.id, UpdateDealRequest: { status: "lost", lost_reason: "Price" } })).data;
got.renamed = (await persons.updatePerson({ id: person.id, UpdatePersonRequest: { name: "Grace Murray" } })).data;
got.participants = (await participants.getDealParticipants({ id: deal.id })).data.map((each) => each.person_id.value);
got.employees = (await persons.getPersons({ org_id: organization.id })).data.map((each) => each.name);
got.deleted = (await deals.deleteDeal({ id: deal.id })).data.id === deal.id;
got.wasDeleted = (await deals.getDeals({ status: "deleted" })).data.map((each) => each.id).includes(deal.id);
await burst();

got.missing = await refused(persons.getPerson({ id: 1 }));
got.invalid = await refused(deals.addDeal({ AddDealRequest: { title: "x", value: "12" } }));
got.unauthorized = await refused(new v2.DealsApi(new v2.Configuration({ apiKey: "nobody", basePath: `${address}/api/v2` })).getDeals({}));
await burst();
got.throttled = (await Promise.all(Array.from({ length: 25 }, () => refused(users.getCurrentUser())))).filter(Boolean);

const oauth = new v2.OAuth2Configuration({ clientId, clientSecret, redirectUri: `${address}/callback`, host: address });
oauth.refreshToken = refreshToken;
const token = await oauth.tokenRefresh();
const bearer = new v2.Configuration({ accessToken: oauth.getAccessToken, basePath: oauth.basePath });
got.byToken = (await new v2.PersonsApi(bearer).getPersons({ limit: 3 })).data.length;
got.rotated = token.refresh_token !== refreshToken;
console.log(JSON.stringify(got));
