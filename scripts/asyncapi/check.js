// Checks AsyncAPI documents: by the official JSON schema, and by the official parser. Neither asks
// the network. For each file an `ok` or what is wrong with it; the exit code is 1 if any is wrong.
'use strict';

const fs = require('node:fs');
const { Parser } = require('@asyncapi/parser');
const specs = require('@asyncapi/specs');
// The official readers of schemas in other languages: parsers know JSON Schema alone by themselves.
const { AvroSchemaParser } = require('@asyncapi/avro-schema-parser');
const { ProtoBuffSchemaParser } = require('@asyncapi/protobuf-schema-parser');
// Of the parser's own dependencies: what it checks schemas with.
const Ajv = require('ajv');
const addFormats = require('ajv-formats');

const ERROR = 0;

function bySchema(document) {
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  addFormats(ajv);
  const schema = specs.schemasWithoutId['3.0.0'];
  // The draft that the schema is written in is known to the checker by another spelling.
  const validate = ajv.compile({ ...schema, $schema: 'http://json-schema.org/draft-07/schema' });
  if (validate(document)) return [];
  return validate.errors.map((error) => `schema: ${error.instancePath}: ${error.message}`);
}

async function byParser(text) {
  const parser = new Parser();
  parser.registerSchemaParser(AvroSchemaParser());
  parser.registerSchemaParser(ProtoBuffSchemaParser());
  const { document, diagnostics } = await parser.parse(text);
  const errors = diagnostics.filter((it) => it.severity === ERROR);
  const said = errors.map((it) => `parser: ${it.path.join('/')}: ${it.message}`);
  if (!document && said.length === 0) said.push('parser: no document');
  return { said, document };
}

async function main() {
  let wrong = false;
  for (const file of process.argv.slice(2)) {
    const text = fs.readFileSync(file, 'utf8');
    const { said, document } = await byParser(text);
    const faults = file.endsWith('.json') ? [...bySchema(JSON.parse(text)), ...said] : said;
    wrong ||= faults.length > 0;
    const operations = document ? document.operations().all().length : 0;
    console.log(faults.length ? `${file}\n  ${faults.join('\n  ')}` : `ok ${file}: ${operations} operations`);
  }
  process.exitCode = wrong ? 1 : 0;
}

main();
