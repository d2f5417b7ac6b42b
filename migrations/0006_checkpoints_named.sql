ALTER TABLE "explanations" ADD COLUMN "teacher_checkpoint" text;--> statement-breakpoint
ALTER TABLE "explanations" ADD COLUMN "student_checkpoint" text;