ALTER TABLE "jobs" ADD COLUMN "attempt_step" bigint;--> statement-breakpoint
ALTER TABLE "jobs" ADD COLUMN "crash_step" bigint;--> statement-breakpoint
ALTER TABLE "jobs" DROP COLUMN "reached_step";