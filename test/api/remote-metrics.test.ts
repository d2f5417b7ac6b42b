import { expect, test } from "vitest";
import type { ModelLoad, RemoteModel } from "../../src/engine/engine.ts";
import { createApp } from "../../src/http/app.ts";
import { createMetrics } from "../../src/http/metrics.ts";
import { gaugeRemotes } from "../../src/remote-metrics.ts";

type Shown = Pick<RemoteModel, "name" | "load" | "replicas">;

test("how busy and how well remote models are, by model and replica, as long as they are connected", async () => {
  const metrics = createMetrics();
  const model = (name: string, waiting: number, replicas: ReturnType<RemoteModel["replicas"]>): Shown => ({
    name,
    load: () => ({ waiting }) as ModelLoad,
    replicas: () => replicas,
  });
  let remotes = [
    model("m", 3, [
      { where: "a:1", state: "up", active: 7 },
      { where: "b:1", state: "open", active: 0 },
    ]),
    // Registered twice, with another tokenizer.
    model("m", 2, [{ where: "a:1", state: "paused", active: 1 }]),
  ];
  gaugeRemotes(metrics, () => remotes);
  const app = createApp({ routes: [], authenticate: null, metrics });
  const lines = async (): Promise<string[]> => {
    const text = await (await app.request("http://127.0.0.1/metrics")).text();
    return text.split("\n").filter((line) => line.startsWith("preceptor_remote"));
  };
  const expected = [
    'preceptor_remote_waiting{model="m"} 5',
    'preceptor_remote_active{model="m",replica="a:1"} 8',
    'preceptor_remote_active{model="m",replica="b:1"} 0',
    'preceptor_remote_replica_state{model="m",replica="a:1",state="up"} 1',
    'preceptor_remote_replica_state{model="m",replica="a:1",state="paused"} 1',
    'preceptor_remote_replica_state{model="m",replica="a:1",state="open"} 0',
    'preceptor_remote_replica_state{model="m",replica="b:1",state="up"} 0',
    'preceptor_remote_replica_state{model="m",replica="b:1",state="paused"} 0',
    'preceptor_remote_replica_state{model="m",replica="b:1",state="open"} 1',
  ];
  expect(await lines()).toEqual(expected);
  expect(await lines()).toEqual(expected);
  remotes = [];
  expect(await lines()).toEqual([]);
});
