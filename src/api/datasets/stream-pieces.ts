/** A long file as a response: read as fast as the client takes it, ended when the client leaves. */
import { deferred } from "../../deferred.ts";
import type { ApiContext, StreamOutcome } from "../../http/context.ts";

/** Lines are gathered: a write for each would cost more than reading it. */
const PIECE_BYTES = 64 * 1024;

/** What fails before the first piece is thrown, so that it becomes an ordinary error; later the connection is cut. */
export async function streamPieces(
  c: ApiContext,
  parts: AsyncGenerator<Uint8Array>,
  { filename, contentType }: { filename: string; contentType: string },
): Promise<Response> {
  const ended = deferred<StreamOutcome>();
  const pieces = gather(parts);
  let next: Promise<IteratorResult<Buffer>> | undefined = Promise.resolve(await pieces.next());
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await (next ?? pieces.next());
        next = undefined;
        if (!done) return controller.enqueue(value);
        controller.close();
        ended.resolve("completed");
      } catch (error) {
        c.var.log.error({ err: error }, "a download was cut");
        controller.error(error);
        ended.resolve("failed");
      }
    },
    async cancel() {
      ended.resolve("client_left");
      await pieces.return(undefined);
    },
  });
  c.set("streamEnded", ended.promise);
  return c.body(body, 200, {
    "content-type": contentType,
    "content-disposition": `attachment; filename="${filename}"`,
  });
}

async function* gather(parts: AsyncGenerator<Uint8Array>): AsyncGenerator<Buffer> {
  let waiting: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of parts) {
    waiting.push(part);
    bytes += part.length;
    if (bytes < PIECE_BYTES) continue;
    yield Buffer.concat(waiting);
    waiting = [];
    bytes = 0;
  }
  if (bytes > 0) yield Buffer.concat(waiting);
}
