CREATE TABLE "explanations" (
	"id" text PRIMARY KEY NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"status" text NOT NULL,
	"teacher_id" text NOT NULL,
	"teacher_version" integer NOT NULL,
	"student_id" text,
	"student_version" integer,
	"question" text NOT NULL,
	"solution" text NOT NULL,
	"choices" json NOT NULL,
	"best" integer,
	"usage" json NOT NULL,
	"sampling" json NOT NULL,
	"rank_by" json,
	"prompt" text,
	"error" json,
	"metadata" jsonb NOT NULL,
	CONSTRAINT "explanations_status" CHECK ("explanations"."status" in ('queued', 'in_progress', 'completed', 'failed', 'cancelled'))
);
--> statement-breakpoint
CREATE TABLE "model_versions" (
	"model_id" text NOT NULL,
	"version" integer NOT NULL,
	"source" text NOT NULL,
	"adapter" text,
	"adapter_hash" text,
	"weights_hash" text,
	"tokenizer_hash" text,
	"precision" text NOT NULL,
	"device" text NOT NULL,
	"context_length" integer,
	"credential" text,
	"teacher_format" json,
	"student_format" json,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "model_versions_model_id_version_pk" PRIMARY KEY("model_id","version")
);
--> statement-breakpoint
CREATE TABLE "models" (
	"id" text PRIMARY KEY NOT NULL,
	"version" integer NOT NULL,
	"first_version" integer NOT NULL,
	"pinned" boolean DEFAULT false NOT NULL,
	"metadata" jsonb NOT NULL,
	"teacher_body" json,
	"student_body" json,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"deleted_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE INDEX "explanations_created" ON "explanations" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "explanations_teacher" ON "explanations" USING btree ("teacher_id","created_at","id");--> statement-breakpoint
CREATE INDEX "explanations_unfinished" ON "explanations" USING btree ("updated_at") WHERE status in ('queued', 'in_progress');--> statement-breakpoint
CREATE INDEX "models_created" ON "models" USING btree ("created_at","id");