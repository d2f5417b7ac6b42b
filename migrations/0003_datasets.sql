CREATE TABLE "datasets" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text,
	"content_hash" text NOT NULL,
	"index_hash" text NOT NULL,
	"rows" integer NOT NULL,
	"bytes" bigint NOT NULL,
	"columns" json NOT NULL,
	"duplicates" integer NOT NULL,
	"source" json NOT NULL,
	"metadata" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"deleted_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE INDEX "datasets_created" ON "datasets" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "datasets_content" ON "datasets" USING btree ("content_hash") WHERE deleted_at is null;