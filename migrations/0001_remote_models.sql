ALTER TABLE "model_versions" ADD COLUMN "tokenizer" text;--> statement-breakpoint
ALTER TABLE "model_versions" ADD COLUMN "tempered" double precision;