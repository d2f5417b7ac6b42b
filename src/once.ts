/** Calls from the second on do nothing: what is given back is given back once, however many paths lead there. */
export function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
