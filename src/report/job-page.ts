import { sanitise } from "../sanitise.ts";
import type { JobReport } from "./collect-job.ts";
import { curveFigure } from "./curve-svg.ts";
import { sampleNote } from "./dataset-page.ts";
import { evaluationSection } from "./evaluation.ts";
import type { RowFigures } from "./figures.ts";
import { lineageSection, type Relatives } from "./lineage.ts";
import { html, line, type Markup } from "./markup.ts";
import { short, whole } from "./numbers.ts";
import { figuresGrid, type Page, renderReport, section } from "./page.ts";
import { lengthsSection, partsSection, rejectionsSection, rowsSections, violationsSection } from "./rows.ts";
import { facts } from "./table.ts";

export async function renderJobReport(report: JobReport, made: Page["made"]): Promise<string> {
  const { job, config, result, progress, evaluations, curves } = report;
  const { accepted, rejected } = rowsOf(report);
  return renderReport({
    kind: "Distillation report",
    title: config.name ?? job.id,
    made,
    body: [
      headline(report),
      rowsNote(report),
      evaluationSection(evaluations),
      section("What was asked", configFacts(report)),
      section("How far it came", progressFacts(report)),
      rejectionsSection(result?.rejected ?? progress.rejected ?? null, rejected),
      ...(accepted
        ? [
            await partsSection(accepted, "of the accepted rows"),
            violationsSection(accepted),
            lengthsSection(accepted),
            ...rowsSections(accepted),
          ]
        : []),
      section("Curves", figuresGrid(curves.map(curveFigure))),
      lineage(report),
    ],
  });
}

function rowsOf({ rows }: JobReport): { accepted: RowFigures | null; rejected: RowFigures | null } {
  if (!rows) return { accepted: null, rejected: null };
  return "live" in rows ? rows.live : rows;
}

function headline({
  job,
  progress: { accepted = 0, questions = 0, total_questions: total },
  result,
}: JobReport): Markup {
  const of = total === undefined ? "" : ` of ${whole(total)}`;
  const ended = result ? `, ended by ${result.ended_by.replaceAll("_", " ")}` : "";
  return html`<p class="finding"><b>${job.status}</b>: ${whole(accepted)} rows from ${whole(questions)}${of} questions${ended}.</p>${
    job.error ? html`<p class="warning">${line(job.error.message)}</p>` : ""
  }`;
}

function rowsNote({ rows, result, progress: { questions = 0 } }: JobReport): Markup | "" {
  if (rows && "live" in rows && rows.live.questions > 0) {
    const seen = whole(rows.live.questions);
    return html`<p class="warning">The job is not done with its rows: figures and rows are those of the first ${seen} of ${whole(questions)} finished questions.</p>`;
  }
  if (rows && "accepted" in rows && rows.accepted) return sampleNote(rows.accepted);
  const made = result ? result.accepted > 0 : questions > 0;
  return made ? html`<p class="warning">Its rows are not there any more.</p>` : "";
}

function configFacts({ config, job }: JobReport): Markup {
  const { sampling, finetune, evaluate, target_rows: target, preview } = config;
  const code = (text: string | null): Markup | null => (text === null ? null : html`<code>${line(text)}</code>`);
  return html`${facts([
    ["Teacher", code(config.teacher)],
    ["Student", code(config.student)],
    ["Dataset", code(config.dataset)],
    [
      "Explanations",
      config.from === "rows" ? "the rows' own traces" : `${whole(config.samples_per_question)} per question`,
    ],
    ["Sampling", `temperature ${sampling.temperature} · top_p ${sampling.top_p} · top_k ${sampling.top_k}`],
    ["Selected", config.select.rule],
    ["Target", target === null ? null : `${whole(target)} rows`],
    ["Preview", preview === null ? null : `${whole(preview)} questions`],
    ["Seed", String(config.seed)],
    ["Fine-tuned", code(finetune?.training.model ?? null)],
    [
      "Measured on",
      evaluate && html`<code>${line(evaluate.dataset)}</code>${evaluate.held_out ? `, ${evaluate.held_out.part}` : ""}`,
    ],
    [
      "Answers",
      evaluate && `${evaluate.answer.type}, ${whole(evaluate.samples)} a question, temperature ${evaluate.temperature}`,
    ],
    ["Config hash", code(job.configHash)],
  ])}
<details><summary>The whole configuration</summary><pre>${sanitise(JSON.stringify(config, null, 2))}</pre></details>`;
}

function progressFacts({ job, progress }: JobReport): Markup {
  const time = (at: Date | null): string | null => at && `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return facts([
    ["Stage", progress.stage && [progress.stage, progress.part].filter(Boolean).join(": ")],
    ["Created", time(job.createdAt)],
    ["Finished", time(job.finishedAt)],
    ["Tokens sampled", whole(progress.tokens_sampled ?? 0)],
    ["Tokens scored", whole(progress.tokens_scored ?? 0)],
    ["Tokens trained", whole(progress.tokens_trained ?? 0)],
    ["Seconds of work", short(progress.seconds)],
    [
      "Left",
      job.finishedAt === null && typeof progress.eta_seconds === "number"
        ? `about ${short(Math.ceil(progress.eta_seconds))} s`
        : null,
    ],
  ]);
}

function lineage({ config, result, student, controls }: JobReport): Markup | "" {
  const { finetune, evaluate } = config;
  const ofControls: Relatives = Object.entries(controls).flatMap(([control, { dataset, student: trained }]) => [
    [`Rows of the control ${control}`, dataset] as const,
    [`Student of the control ${control}`, trained] as const,
  ]);
  return lineageSection(
    [
      ["Dataset", config.dataset],
      ["Teacher", config.teacher],
      ["Student that scored", config.student],
      ["Student before fine-tuning", finetune?.training.model],
      ["Dataset of the evaluation", evaluate?.dataset],
    ],
    [
      ["Accepted rows", result?.output_dataset],
      ["Rejected rows", result?.error_dataset],
      ["Student", student?.student],
      ["Checkpoint", student?.checkpoint],
      ...ofControls,
    ],
  );
}
