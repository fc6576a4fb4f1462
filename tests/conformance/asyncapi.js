// asyncapi.js FILE: validates an AsyncAPI document against the published JSON schema of its version.
const { readFileSync } = require("node:fs");
const Ajv = require("ajv");
const addFormats = require("ajv-formats");

const document = JSON.parse(readFileSync(process.argv[2], "utf8"));
const schema = require(`@asyncapi/specs/schemas/${document.asyncapi}.json`);
// The published schema brings the meta-schemas of JSON Schema with it.
const ajv = new Ajv({ strict: false, meta: false, validateSchema: false, allErrors: true });
addFormats(ajv);
const validate = ajv.compile(schema);
if (!validate(document)) {
  console.error(JSON.stringify(validate.errors.slice(0, 10), null, 2));
  process.exit(1);
}
console.log(`${process.argv[2]} is a valid AsyncAPI ${document.asyncapi} document`);
