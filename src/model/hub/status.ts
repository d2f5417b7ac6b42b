import { fail, type PreceptorError } from "../../errors.ts";
import type { HubDeps } from "./types.ts";

/** What a refusal of the hub means for the user. */
export function refusal(response: Response, repo: string, what: string, deps: HubDeps): PreceptorError {
  const code = response.headers.get("x-error-code");
  const page = `${deps.endpoint}/${repo}`;
  if (code === "GatedRepo") {
    return fail(
      "hub_error",
      deps.token
        ? `${repo} is gated and HF_TOKEN has no access to it; accept its terms at ${page}`
        : `${repo} is gated: accept its terms at ${page}, then set HF_TOKEN to a token of that account`,
    );
  }
  switch (response.status) {
    case 401:
    case 403:
      // The hub answers so for repositories that do not exist, lest private names leak.
      return fail(
        "hub_error",
        deps.token
          ? `the hub refuses ${repo} (${response.status}): check the name, and that HF_TOKEN may read it`
          : `the hub refuses ${repo} (${response.status}): check the name; if it is private or gated, set HF_TOKEN`,
      );
    case 404:
      return fail(
        "hub_error",
        `the hub does not have ${what}; check the name${deps.token ? "" : ", or set HF_TOKEN if it is private"}`,
      );
    default:
      return fail("hub_error", `the hub answered ${response.status} for ${what}`);
  }
}
