CREATE TABLE "checkpoints" (
	"id" text PRIMARY KEY NOT NULL,
	"job_id" text,
	"step" bigint NOT NULL,
	"kind" text NOT NULL,
	"artifact" text NOT NULL,
	"weights_hash" text NOT NULL,
	"config" json NOT NULL,
	"is_best" boolean DEFAULT false NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"deleted_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "job_events" (
	"job_id" text NOT NULL,
	"seq" integer NOT NULL,
	"type" text NOT NULL,
	"data" json NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "job_events_job_id_seq_pk" PRIMARY KEY("job_id","seq")
);
--> statement-breakpoint
CREATE TABLE "job_metrics" (
	"job_id" text NOT NULL,
	"step" bigint NOT NULL,
	"name" text NOT NULL,
	"value" double precision,
	CONSTRAINT "job_metrics_job_id_step_name_pk" PRIMARY KEY("job_id","step","name")
);
--> statement-breakpoint
CREATE TABLE "jobs" (
	"id" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"status" text NOT NULL,
	"config" json NOT NULL,
	"config_hash" text NOT NULL,
	"seed" bigint NOT NULL,
	"metadata" jsonb NOT NULL,
	"progress" json,
	"reached_step" bigint DEFAULT 0 NOT NULL,
	"metrics" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"result" json,
	"error" json,
	"wanted" text,
	"lease_token" bigint DEFAULT 0 NOT NULL,
	"lease_owner" text,
	"lease_until" timestamp (3) with time zone,
	"attempts" integer DEFAULT 0 NOT NULL,
	"crashes" integer DEFAULT 0 NOT NULL,
	"last_seq" integer DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone,
	CONSTRAINT "jobs_status" CHECK ("jobs"."status" in ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
	CONSTRAINT "jobs_lease" CHECK (("jobs"."status" = 'running') = ("jobs"."lease_until" is not null)),
	CONSTRAINT "jobs_wanted" CHECK ("jobs"."wanted" is null or ("jobs"."wanted" in ('pause', 'cancel') and "jobs"."status" = 'running'))
);
--> statement-breakpoint
CREATE INDEX "checkpoints_job" ON "checkpoints" USING btree ("job_id","step");--> statement-breakpoint
CREATE INDEX "checkpoints_created" ON "checkpoints" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "jobs_created" ON "jobs" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "jobs_queued" ON "jobs" USING btree ("created_at","id") WHERE status = 'queued';--> statement-breakpoint
CREATE INDEX "jobs_running" ON "jobs" USING btree ("lease_until") WHERE status = 'running';