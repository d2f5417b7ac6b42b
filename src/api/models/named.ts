/** Which weights something was made with, as resources tell it. */
export interface NamedVersion {
  id: string;
  version: number;
  checkpoint?: string | null | undefined;
}

export function namedVersion({ id, version, checkpoint }: NamedVersion) {
  return { id, version, ...(checkpoint ? { checkpoint } : {}) };
}

/** The same weights again. */
export const nameOf = ({ id, version, checkpoint }: NamedVersion): string => `${id}@${checkpoint ?? version}`;
