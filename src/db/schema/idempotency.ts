import { index, integer, pgTable, primaryKey, timestamp } from "drizzle-orm/pg-core";
import { exactText } from "../columns.ts";

/**
 * Answers to requests with an `Idempotency-Key`, and keys whose request is under way (no status yet). Times are the
 * database's, so that servers that share it agree.
 */
export const idempotencyKeys = pgTable(
  "idempotency_keys",
  {
    /** Whose key it is: callers do not meet. */
    owner: exactText().notNull(),
    key: exactText().notNull(),
    /** Of route and body; null while a form is still arriving. */
    requestHash: exactText("request_hash"),
    /** Whoever claimed the key; another may have taken it over. */
    token: exactText().notNull(),
    status: integer(),
    body: exactText(),
    /** Until then the request counts as under way. */
    claimedUntil: timestamp("claimed_until", { withTimezone: true, precision: 3 }).notNull(),
    expiresAt: timestamp("expires_at", { withTimezone: true, precision: 3 }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.owner, table.key] }), index("idempotency_keys_expiry").on(table.expiresAt)],
);
