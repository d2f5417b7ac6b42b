/** Keeps an eye on the replicas of a pool: tries those whose breaker is open, and notices when a server is another one. */
import type { Capabilities, RemoteOptions } from "../engine.ts";
import { RemoteFailure } from "./failure.ts";
import { HEALTH_INTERVAL_MS, IDLE_AFTER_MS, SAME_WEIGHTS_NATS } from "./limits.ts";
import { distance, probe, readCard } from "./probe.ts";
import type { Profile } from "./profile.ts";
import type { Remote } from "./remote.ts";
import type { Replica } from "./replica.ts";

export interface Health {
  /** Somebody uses the pool: for a while its replicas are asked how they are. */
  used(): void;
  /** The replica's breaker has opened: it is tried when its time has come. */
  opened(replica: Replica): void;
  fingerprint(replica: Replica, value: string): void;
  /** Probes all of them now, those too whose breaker is open. Whether any is well; never rejects. */
  again(): Promise<boolean>;
  stop(): void;
}

export interface HealthDeps {
  remote: Remote;
  options: RemoteOptions;
  /** Of each replica, as last probed. */
  profiles: Map<Replica, Profile>;
  /** A profile has changed: publish what all can do now. */
  changed(): void;
}

export function createHealth({ remote, options, profiles, changed }: HealthDeps): Health {
  const stopped = new AbortController();
  /** The next trial of each. */
  const timers = new Map<Replica, NodeJS.Timeout>();
  const fingerprints = new Map<Replica, string>();
  const looking = new Map<Replica, Promise<boolean>>();
  /** When a replica was last probed for its fingerprint. */
  const lookedAt = new Map<Replica, number>();
  let lastUsed = remote.now();
  let round: NodeJS.Timeout | undefined;

  const eventOf = ({ connection: { where } }: Replica) => ({ model: options.name, where });

  /** Probes a replica anew. Other weights than before are not taken for the same model: the replica stays out. */
  async function look(replica: Replica): Promise<boolean> {
    const before = profiles.get(replica);
    const profile = await probe(replica.connection, options, stopped.signal);
    const nats = distance(before?.probe ?? null, profile.probe);
    const sameAsOthers = [...profiles].every(
      ([other, known]) =>
        other === replica || other.state() === "open" || distance(known.probe, profile.probe) <= SAME_WEIGHTS_NATS,
    );
    // What replicas serve that are out of use themselves is no measure: after an update of all of them the first one decides.
    const alone = [...profiles.keys()].every((other) => other === replica || other.state() === "open");
    const differs =
      nats > SAME_WEIGHTS_NATS
        ? `its log-probs of one text differ by ${nats.toFixed(2)} nats per token from those before`
        : JSON.stringify(before?.capabilities) === JSON.stringify(profile.capabilities)
          ? null
          : "it can do other things than before";
    remote.observe({ ...eventOf(replica), type: "probed", differs });
    if (!alone && !sameAsOthers) return false;
    // The same server that can do less than before is not well: what it answers cannot be read.
    if (before && before.identity === profile.identity && lost(before.capabilities, profile.capabilities)) return false;
    profiles.set(replica, profile);
    try {
      changed();
    } catch (error) {
      // It does not go together with the others: what they can do stays published.
      if (before) profiles.set(replica, before);
      throw error;
    }
    return true;
  }

  /** A look at a replica: its card in passing; all of it where it claims to have changed, or its breaker is open (a trial). */
  function check(replica: Replica, why: "round" | "changed" | "trial"): Promise<boolean> {
    const before = looking.get(replica);
    // Only a round may be lost to a look that is under way: for the others nobody would ask again.
    if (stopped.signal.aborted || (before && why === "round")) return Promise.resolve(false);
    const look = (before ?? Promise.resolve(false)).then(() => lookAt(replica, why));
    looking.set(replica, look);
    return look.finally(() => {
      if (looking.get(replica) === look) looking.delete(replica);
    });
  }

  /** Whether it is well. Never rejects. */
  async function lookAt(replica: Replica, why: "round" | "changed" | "trial"): Promise<boolean> {
    const trial = why === "trial";
    try {
      const same =
        why === "round" &&
        (await readCard(replica.connection, options.name, stopped.signal)).identity === profiles.get(replica)?.identity;
      const well = same || (await look(replica));
      if (well && trial) closed(replica);
      if (!well) keepOut(replica, "it is not what it was, or serves other weights than the other replicas");
      return well;
    } catch (error) {
      if (stopped.signal.aborted) return false;
      if (trial || !(error instanceof RemoteFailure) || error.kind === "refused")
        keepOut(replica, error instanceof Error ? error.message : "it failed");
      else if (replica.failed(error)) opened(replica, error.message);
      return false;
    }
  }

  function closed(replica: Replica): void {
    replica.tried(true);
    clearTimeout(timers.get(replica));
    remote.observe({ ...eventOf(replica), type: "closed" });
    remote.pool.wake();
  }

  function keepOut(replica: Replica, why: string): void {
    replica.tried(false);
    opened(replica, why);
  }

  function opened(replica: Replica, message: string): void {
    remote.observe({ ...eventOf(replica), type: "opened", message });
    later(replica);
  }

  function later(replica: Replica): void {
    clearTimeout(timers.get(replica));
    const timer = setTimeout(
      () => void check(replica, "trial"),
      Math.max(0, replica.availableAt() - remote.now()),
    ).unref();
    timers.set(replica, timer);
  }

  function tick(): void {
    if (remote.now() - lastUsed > IDLE_AFTER_MS) {
      clearInterval(round);
      round = undefined;
      return;
    }
    for (const replica of remote.pool.replicas) if (replica.state() === "up") void check(replica, "round");
  }

  return {
    used() {
      lastUsed = remote.now();
      round ??= setInterval(tick, HEALTH_INTERVAL_MS).unref();
    },
    opened: later,
    fingerprint(replica, value) {
      const before = fingerprints.get(replica);
      fingerprints.set(replica, value);
      // A balancer over two builds changes with every answer.
      const recently = remote.now() - (lookedAt.get(replica) ?? Number.NEGATIVE_INFINITY) < HEALTH_INTERVAL_MS;
      if (before === undefined || before === value || recently) return;
      lookedAt.set(replica, remote.now());
      void check(replica, "changed");
    },
    async again() {
      const why = (replica: Replica) => (replica.state() === "open" ? "trial" : "changed");
      const well = await Promise.all(remote.pool.replicas.map((replica) => check(replica, why(replica))));
      return well.includes(true);
    },
    stop() {
      stopped.abort();
      clearInterval(round);
      for (const timer of timers.values()) clearTimeout(timer);
    },
  };
}

function lost(before: Capabilities, now: Capabilities): boolean {
  return (["sample", "logprobs", "topk", "distributions"] as const).some((able) => before[able] && !now[able]);
}
