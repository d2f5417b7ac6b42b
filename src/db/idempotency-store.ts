/** Keys under which callers repeat a request without having it done twice. */
import { randomUUID } from "node:crypto";
import { and, eq, isNull, lt, or, type SQL, sql } from "drizzle-orm";
import type { Db } from "./database.ts";
import { guarded } from "./errors.ts";
import { idempotencyKeys as keys } from "./schema/idempotency.ts";

/** As long as the longest client tries again (api.md). */
export const KEPT_HOURS = 24;
/** How long a key is blocked by a server that was killed; whoever works on a request renews it much more often. */
export const CLAIM_SECONDS = 30;
/** A row may be released between two looks at it; each time it is somebody's progress. */
const MAX_LOOKS = 10;

export interface KeyOf {
  owner: string;
  key: string;
}

export interface StoredResponse {
  status: number;
  body: string;
  requestHash: string | null;
}

export type Claimed =
  | { state: "ours"; token: string }
  | { state: "done"; response: StoredResponse }
  /** `requestHash`: null where it is not known yet. */
  | { state: "under_way"; requestHash: string | null };

export interface IdempotencyStore {
  claim(of: KeyOf, requestHash: string | null): Promise<Claimed>;
  /** The request is still being worked on. */
  renew(of: KeyOf, token: string): Promise<void>;
  complete(of: KeyOf, token: string, response: StoredResponse): Promise<void>;
  /** The request failed: the next with this key is a new one. */
  release(of: KeyOf, token: string): Promise<void>;
  /** Forgets what is too old; with `exclusive` (nobody else uses the database) also what a killed server left under way. */
  sweep(options: { exclusive: boolean }): Promise<void>;
}

/** Too old, or its server was killed. */
const FREE = sql`${keys.expiresAt} < now() or (${keys.status} is null and ${keys.claimedUntil} < now())`;

export function createIdempotencyStore(db: Db): IdempotencyStore {
  const at = ({ owner, key }: KeyOf): SQL | undefined => and(eq(keys.owner, owner), eq(keys.key, key));
  const held = (of: KeyOf, token: string): SQL | undefined => and(at(of), eq(keys.token, token), isNull(keys.status));
  const claimEnd = sql`now() + make_interval(secs => ${CLAIM_SECONDS})`;
  const expiry = sql`now() + make_interval(hours => ${KEPT_HOURS})`;

  return {
    async claim(of, requestHash) {
      const token = randomUUID();
      const fresh = { requestHash, token, status: null, body: null, claimedUntil: claimEnd, expiresAt: expiry };
      for (let look = 0; look < MAX_LOOKS; look++) {
        const ours = await guarded(
          db
            .insert(keys)
            .values({ ...of, ...fresh })
            .onConflictDoUpdate({
              target: [keys.owner, keys.key],
              set: fresh,
              setWhere: FREE,
            })
            .returning({ token: keys.token }),
        );
        if (ours.length > 0) return { state: "ours", token };
        const [row] = await guarded(db.select().from(keys).where(at(of)));
        if (row) {
          const { status, body } = row;
          if (status === null) return { state: "under_way", requestHash: row.requestHash };
          return { state: "done", response: { status, body: body ?? "", requestHash: row.requestHash } };
        }
      }
      return { state: "under_way", requestHash: null };
    },
    async renew(of, token) {
      await guarded(db.update(keys).set({ claimedUntil: claimEnd }).where(held(of, token)));
    },
    async complete(of, token, response) {
      await guarded(
        db
          .update(keys)
          .set({ ...response, expiresAt: expiry })
          .where(held(of, token)),
      );
    },
    async release(of, token) {
      await guarded(db.delete(keys).where(held(of, token)));
    },
    async sweep({ exclusive }) {
      const old = lt(keys.expiresAt, sql`now()`);
      await guarded(db.delete(keys).where(exclusive ? or(old, isNull(keys.status)) : old));
    },
  };
}
