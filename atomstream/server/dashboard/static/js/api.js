// Requests to this page's server, with the session cookie.

// The path of this server as the browser sees it: empty, or the prefix of a proxy.
const ROOT = new URL("../../..", import.meta.url).pathname.replace(/\/$/, "");

/** The address of one of the server's own paths. */
export function at(path) {
  return ROOT + path;
}

export class RequestError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The JSON of a reply (null if it has none). Without a session, the browser goes to the login page. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const reply = await request(path, { method, body, signal });
  return reply.status === 204 ? null : reply.json();
}

export async function askBytes(path, { signal } = {}) {
  const reply = await request(path, { signal });
  return { bytes: await reply.arrayBuffer(), headers: reply.headers };
}

async function request(path, { method = "GET", body, signal }) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) };
  let reply;
  try {
    reply = await fetch(at(path), { ...options, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The server does not answer.");
  }
  if (reply.status === 401 && !path.startsWith("/session")) await goToLogin();
  if (!reply.ok) throw new RequestError(reply.status, await detailOf(reply));
  return reply;
}

async function detailOf(reply) {
  try {
    const detail = (await reply.json()).detail;
    return typeof detail === "string" ? detail : `The server answered ${reply.status}.`;
  } catch {
    return `The server answered ${reply.status}.`;
  }
}

/** Goes to the login page if there is really no session: otherwise both pages would redirect to each other. */
async function goToLogin() {
  if ((await fetch(at("/session"), { cache: "no-store" })).ok) return;
  const here = location.pathname + location.search;
  location.replace(here === at("/") ? at("/login") : at(`/login?next=${encodeURIComponent(here)}`));
}

export async function logOut() {
  await ask("/session", { method: "DELETE" }).catch(() => {});
  location.replace(at("/login"));
}

export function socketUrl(path) {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${at(path)}`;
}
