// Posts standard input over HTTP/2 (or sends it otherwise, as `:method` says) and prints the answer as JSON, with every header and trailer: node post.mjs ORIGIN PATH NAME VALUE ...

import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const [origin, path, ...pairs] = process.argv.slice(2);
const headers = { ":method": "POST", ":path": path };
for (let n = 0; n < pairs.length; n += 2) headers[pairs[n]] = pairs[n + 1];

const session = connect(origin);
const stream = session.request(headers, { endStream: false });
const told = {};
const body = [];
stream.on("response", (fields) => Object.assign(told, fields));
stream.on("trailers", (fields) => Object.assign(told, fields));
stream.on("data", (data) => body.push(data));
stream.on("close", () => {
  console.log(JSON.stringify({ told, body: Buffer.concat(body).toString("base64"), reset: stream.rstCode }));
  session.destroy();
});
stream.end(readFileSync(0));
