import { FetchFailed } from "./fetch-retry.ts";
import type { SendRequest, SendResponse } from "./fetch-send.ts";

export async function sendS3({ url }: SendRequest): Promise<SendResponse> {
  throw new FetchFailed(`${url.protocol} is not there yet`);
}
