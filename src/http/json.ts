/**
 * JSON as the API sends it. `JSON.stringify` turns NaN and Infinity into null and a Float32Array into an object of
 * indices; the first is what the API promises of an undefined number, the second never is. Tests run with
 * `strictJson`, which refuses both where they arise, so that neither is sent by accident.
 */
export function assertJson(value: unknown, path = "$"): void {
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError(`${path} is ${value}: say null where a number is undefined`);
  } else if (typeof value === "bigint" || typeof value === "function") {
    throw new TypeError(`${path} is a ${typeof value}, which JSON cannot carry`);
  } else if (ArrayBuffer.isView(value)) {
    throw new TypeError(`${path} is a ${value.constructor.name}: use Array.from`);
  } else if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) assertJson(item, `${path}.${i}`);
  } else if (typeof value === "object" && value !== null) {
    for (const [key, item] of Object.entries(value)) assertJson(item, `${path}.${key}`);
  }
}
