/** The start page: what this server is, which models it has, and a first request that works as it stands. */
import { html } from "hono/html";
import { firstRequests, type Request } from "./requests.ts";

export interface PageModel {
  id: string;
  roles: readonly ("teacher" | "student")[];
  status?: "loading" | "ready" | "unloaded" | "failed" | undefined;
}

export interface PageContent {
  version: string;
  /** null: they could not be read (the database is away). */
  models: readonly PageModel[] | null;
  /** As the browser reached us: `http://127.0.0.1:8080`. */
  origin: string;
  /** A key is configured, so requests must carry one. */
  secured: boolean;
}

/** A page for people; the API lists them all. */
const SHOWN_MODELS = 50;

export function renderPage(content: PageContent) {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preceptor</title>
<link rel="stylesheet" href="/assets/page.css">
<link rel="icon" href="data:,">
</head>
<body>
<main>
<header>
<h1>Preceptor</h1>
<p class="lead">A server for Reinforcement-Learned Teachers. A teacher is given a question <em>and</em> its solution and writes
the explanation that connects them. A student, who never sees the solution first, shows how much the explanation helps.</p>
<nav aria-label="Main">
<a class="main" href="/docs">API reference</a>
<a href="/openapi.json">OpenAPI document</a>
<a href="/readyz">Readiness</a>
<a href="/metrics">Metrics</a>
</nav>
<ol class="flow">
<li><b>1 · Data</b>a question and its solution</li>
<li><b>2 · Teacher</b>writes the explanation between them</li>
<li><b>3 · Student</b>reads it and predicts the solution</li>
<li><b>4 · Reward</b>how likely the solution became, how natural the way there</li>
</ol>
</header>
<section aria-labelledby="models">
<h2 id="models">Models</h2>
<div class="card">${modelList(content.models)}</div>
</section>
<section aria-labelledby="first">
<h2 id="first">First requests</h2>
${content.secured ? html`<p class="note">This server needs an API key: put it into <code>PRECEPTOR_API_KEY</code> in your shell.</p>` : ""}
${firstRequests(content).map(requestCard)}
<p class="note">Clients of OpenAI's API work too: point them at <code>${content.origin}/v1</code>.</p>
</section>
</main>
<footer>Preceptor ${content.version}</footer>
<script src="/assets/page.js" defer></script>
</body>
</html>
`;
}

function modelList(models: readonly PageModel[] | null) {
  if (models === null)
    return html`<p class="empty">The list of models cannot be read right now; <a href="/readyz">readiness</a> says why.</p>`;
  if (models.length === 0)
    return html`<p class="empty">None yet. Put a checkpoint into a models directory and register it as below.</p>`;
  const more = models.length - SHOWN_MODELS;
  return html`<ul class="models">${models.slice(0, SHOWN_MODELS).map(modelItem)}</ul>${
    more > 0
      ? html`<p class="empty">and ${more} more: <code>GET /v1/teachers</code>, <code>GET /v1/students</code></p>`
      : ""
  }`;
}

function modelItem({ id, roles, status }: PageModel) {
  return html`<li><code>${id}</code>${roles.map((role) => html`<span class="tag">${role}</span>`)}${
    status ? html`<span class="tag ${status}">${status === "unloaded" ? "loads on first use" : status}</span>` : ""
  }</li>`;
}

function requestCard({ title, command }: Request, index: number) {
  const id = `request-${index}`;
  return html`<div class="card request"><div><h3>${title}</h3><button type="button" data-copy="${id}" hidden>Copy</button></div>
<pre id="${id}">${command}</pre></div>`;
}
