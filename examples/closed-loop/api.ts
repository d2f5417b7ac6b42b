/** The little of the HTTP API that the loop needs. `fetch` is all it takes. */

export interface Api {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
  /** Starts a job and waits for its end; throws where it fails. `watch` is told what happens meanwhile. */
  run(path: string, body: unknown, watch: (event: JobEvent) => void): Promise<Job>;
}

export interface Job {
  id: string;
  status: string;
  config: Record<string, unknown>;
  result?: Record<string, unknown>;
  output_dataset?: string | null;
  finished_at: number | null;
  error?: { message: string };
}

export interface JobEvent {
  type: string;
  data: unknown;
}

/** Between two looks at a job whose stream of events broke off. */
const AGAIN_MS = 1_000;

export function connect(url: string, key?: string): Api {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };

  async function send(path: string, init: RequestInit): Promise<Response> {
    const response = await fetch(url + path, { ...init, headers: { ...headers, ...init.headers } });
    if (!response.ok) throw new Error(`${init.method ?? "GET"} ${path}: ${response.status} ${await response.text()}`);
    return response;
  }
  const get = async <T>(path: string): Promise<T> => (await send(path, {})).json() as Promise<T>;
  const post = async <T>(path: string, body: unknown): Promise<T> =>
    (await send(path, { method: "POST", body: JSON.stringify(body) })).json() as Promise<T>;

  async function run(path: string, body: unknown, watch: (event: JobEvent) => void): Promise<Job> {
    const { id } = await post<Job>(path, body);
    for (let last = 0; ; ) {
      try {
        const accept = { accept: "text/event-stream" };
        const stream = await send(`${path}/${id}/events?after=${last}`, { headers: accept });
        for await (const event of eventsOf(stream)) {
          last = event.sequence_number;
          watch(event);
        }
      } catch {
        // The server may have been restarted. The job goes on when it is back, and so do we.
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
      const job = await get<Job>(`${path}/${id}`);
      if (job.finished_at === null) continue;
      if (job.status !== "succeeded")
        throw new Error(`${id} ${job.status}: ${job.error?.message ?? "no reason given"}`);
      return job;
    }
  }

  return { get, post, run };
}

/** Server-sent events, of which only the data is looked at. */
async function* eventsOf(response: Response): AsyncGenerator<JobEvent & { sequence_number: number }> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(piece, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice("data: ".length)) as JobEvent & { sequence_number: number };
    }
  }
}
