import { defineConfig } from "drizzle-kit";

/** `npm run db:generate` after a change in src/db/schema; the SQL it writes runs on PGlite and on PostgreSQL. */
export default defineConfig({ dialect: "postgresql", schema: "./src/db/schema/*.ts", out: "./migrations" });
