// Choices of the user that this browser keeps. Without storage (disabled, or full) they last until the page is closed.

const PREFIX = "atomstream-";

/** The stored object of that name over `defaults`; a stored value of another type than the default is ignored. */
export function loadChoices(name, defaults) {
  let stored = null;
  try {
    stored = JSON.parse(localStorage.getItem(PREFIX + name));
  } catch { /* no storage, or not JSON */ }
  const made = { ...defaults };
  for (const [key, value] of Object.entries(defaults)) {
    const found = stored?.[key];
    if (typeof found === typeof value && (typeof found !== "number" || Number.isFinite(found))) made[key] = found;
  }
  return made;
}

/** Stores an object; false if the browser refuses. */
export function saveChoices(name, values) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(values));
    return true;
  } catch {
    return false;
  }
}

/** Removes a stored object. */
export function removeChoices(name) {
  try {
    localStorage.removeItem(PREFIX + name);
  } catch { /* no storage: nothing is stored */ }
}
