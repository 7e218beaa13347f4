// The short way of small puts, with the SDK as it is installed and no server: a new SDK that has other parts fails here.
import process from "node:process";
import { Readable } from "node:stream";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createDirectPut } from "../../../lib/s3/direct.ts";

process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true";

type Sent = { path: string; method: string; headers: Record<string, string>; body: unknown };

/** A client whose requests go nowhere, and what it sent. */
function makeClient(statusCode = 200) {
  const sent: Sent[] = [];
  const client = new S3Client({
    ...{ region: "us-east-1", endpoint: "http://store.example", forcePathStyle: true },
    credentials: { accessKeyId: "key", secretAccessKey: "secret" },
    requestHandler: {
      async handle(request: unknown) {
        sent.push(request as Sent);
        const headers = { etag: '"tag"' };
        const response = { statusCode: sent.length === 1 ? 200 : statusCode, headers };
        return { response: { ...response, body: Readable.from([]) } as never };
      },
    },
  });
  return { client, sent };
}

/** The first put goes by the SDK, and is learned from. */
async function learn(client: S3Client, direct: ReturnType<typeof createDirectPut>) {
  const command = new PutObjectCommand({ Bucket: "bucket", Key: "a/first", Body: "1" });
  command.middlewareStack.add(direct.learn("a/first") as never, { step: "finalizeRequest" });
  await client.send(command);
}

const headers = { "content-type": "text/plain", "x-amz-content-sha256": "0".repeat(64) };
const body = Buffer.from("2");

test("after one put by the SDK the next goes the short way, signed by the SDK's signer", async () => {
  const { client, sent } = makeClient();
  const direct = createDirectPut(client, "bucket");
  assert.is(await direct.put("a/second é+", body, headers), undefined, "nothing is known yet");
  await learn(client, direct);
  assert.is(await direct.put("a/second é+", body, headers), '"tag"');
  const [, second] = sent;
  assert.equal([second?.method, second?.path], ["PUT", "/bucket/a/second%20%C3%A9%2B"]);
  assert.is(second?.body, body);
  assert.match(
    second?.headers["authorization"] ?? "",
    /^AWS4-HMAC-SHA256 Credential=key\/\d{8}\/us-east-1\/s3\/aws4_request, SignedHeaders=\S*content-type;host;\S*x-amz-content-sha256;/,
  );
});

test("any other answer than 200, and an SDK with other parts, leave the put to the long way", async () => {
  const { client } = makeClient(503);
  const direct = createDirectPut(client, "bucket");
  await learn(client, direct);
  assert.is(await direct.put("a/second", body, headers), undefined);
  const other = createDirectPut({ config: {} }, "bucket");
  await learn(makeClient().client, other);
  assert.is(await other.put("a/second", body, headers), undefined);
});

test.run();
