/** Applies a change from the service to the old value, and returns the new one. */
export function applied(old, change) {
  if (!isObject(change)) return change;
  if (Array.isArray(old)) {
    if ("drop" in change) return [...old.slice(change.drop), ...change.add];
    return old.map((item, index) => (index in change.at ? applied(item, change.at[index]) : item));
  }
  if (!isObject(old)) return change;
  const changed = { ...old };
  for (const [name, value] of Object.entries(change)) {
    changed[name] = name in old ? applied(old[name], value) : value;
  }
  return changed;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
