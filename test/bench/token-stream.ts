import { parseEvents } from "../../src/parse-events.ts";

/** What a client saw of a stream of `/v1/completions` or `/v1/chat/completions`. Times are `performance.now()`. */
export interface TokenStream {
  /** Events with a token in them; a request says `return_token_ids` so that every token makes one, also without text. */
  tokens: number;
  firstToken: number;
  lastToken: number;
  /** The last line was `[DONE]`. */
  complete: boolean;
  /** The error the stream ended with. */
  error?: string;
}

interface Chunk {
  choices?: { token_ids?: number[] }[];
  error?: { code: string; message: string };
}

/** Reads to the end; `seen` is also kept up to date meanwhile, for those who look at a stream that has not ended. */
export async function readTokens(
  body: AsyncIterable<Uint8Array>,
  seen: TokenStream = emptyStream(),
  onToken: (tokens: number) => void = () => {},
): Promise<TokenStream> {
  for await (const { data } of parseEvents(body)) {
    if (data === "[DONE]") {
      seen.complete = true;
      continue;
    }
    const { choices, error } = JSON.parse(data) as Chunk;
    if (error) seen.error = `${error.code}: ${error.message}`;
    if (!choices?.some(({ token_ids }) => token_ids && token_ids.length > 0)) continue;
    seen.lastToken = performance.now();
    if (seen.tokens++ === 0) seen.firstToken = seen.lastToken;
    onToken(seen.tokens);
  }
  return seen;
}

export const emptyStream = (): TokenStream => ({ tokens: 0, firstToken: 0, lastToken: 0, complete: false });

/** From the first token to the last; the first one has no time of its own. */
export const tokensPerSecond = ({ tokens, firstToken, lastToken }: TokenStream): number =>
  tokens < 2 ? 0 : ((tokens - 1) * 1000) / (lastToken - firstToken);
