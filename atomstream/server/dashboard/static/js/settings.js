// The settings page: people, API keys and the audit log for administrators; one's own password for each person.
import { ask, at, logOut } from "./api.js";
import { setUpDialog } from "./dialog.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { momentText, visible } from "./format.js";
import { notify } from "./notifications.js";
import { ProjectChoice } from "./project_choice.js";
import { setUpTheme } from "./theme.js";

const INSTRUMENT = "";
let known = { users: [], keys: [], projects: [] };
let edited = null; // the person in the dialog; null for a new one
let asked = null; // what is done when the question of the dialog is answered with yes

const personProjects = new ProjectChoice(byId("person-projects"));
const keyProjects = new ProjectChoice(byId("key-projects"));

async function refresh() {
  try {
    const [people, entries] = await Promise.all([ask("/people"), ask("/people/audit?limit=100")]);
    known = people;
    setText(byId("problem"), people.problem);
    setHidden(byId("problem"), !people.problem);
    setHidden(byId("no-people"), people.users.length > 0);
    byId("people").replaceChildren(...people.users.map(personRow));
    byId("keys").replaceChildren(...people.keys.map(keyRow));
    byId("audit").replaceChildren(...entries.map(auditRow));
  } catch (error) {
    if (error.status !== 401) notify(error.message);
  }
}

function projectsText(ids) {
  if (ids === null) return "all projects";
  return ids.map((id) => visible(known.projects.find((one) => one.id === id)?.name ?? id)).join(", ") || "no projects";
}

function button(text, name, click, tone = "") {
  return el("button", { type: "button", class: `small ${tone}`, "aria-label": `${text}: ${name}`, onclick: click }, text);
}

function personRow(user) {
  const ways = [user.password ? "password" : null, user.issuer ? `sign-in by ${user.issuer}` : null].filter(Boolean);
  const name = visible(user.name);
  return el("li", {},
    el("span", { class: "name", dir: "auto" }, name),
    el("span", { class: "sub" }, ways.join(", ") || "no password: needs a login link"),
    el("span", { class: "facts" }, `${user.role}, ${projectsText(user.projects)}`),
    el("span", { class: "actions" },
      button("Change", name, () => openPerson(user)),
      button("Login link", name, () => makeLink(user)),
      button("Remove", name, () => question({
        title: `Remove ${name}?`,
        text: "They are logged out everywhere, and all their keys are revoked.",
        submit: "Remove",
        run: () => ask(`/people/users/${user.id}`, { method: "DELETE" }),
      }), "danger")));
}

function keyRow(key) {
  const name = key.own ? "the server's own key" : `key ${key.id}`;
  const used = key.used ? `last used ${momentText(1000 * key.used)}` : key.own ? "" : "never used";
  const over = key.expires && 1000 * key.expires < Date.now();
  const ends = key.expires ? `${over ? "expired" : "expires"} ${momentText(1000 * key.expires)}` : "does not expire";
  const owner = key.own ? "The server's own key" : visible(key.owner);
  return el("li", {},
    el("span", { class: "name", dir: "auto" }, owner, el("code", {}, key.id)),
    el("span", { class: "sub" }, [key.instrument ? "instrument" : null, `made ${momentText(Date.parse(key.made))}`, used].filter(Boolean).join(" · ")),
    el("span", { class: "facts" }, `${key.scope}, ${projectsText(key.projects)}`, el("br"), el("span", { class: over ? "warn" : "muted" }, ends)),
    el("span", { class: "actions" },
      over ? null : button("Rotate", name, () => question({
        title: `Make a key in place of ${key.own ? name : key.id}?`,
        text: "The new one has the same owner, scope and projects. Change the programs that use the old one meanwhile.",
        submit: "Make the key",
        overlap: true,
        run: () => ask(`/people/keys/${key.id}/rotate`, { method: "POST", body: { overlap_s: Number(byId("ask-overlap").value) } }),
        after: showKey,
      })),
      button("Revoke", name, () => question({
        title: `Revoke ${name}?`,
        text: `Programs that use it (${owner}) are refused from now on. This can't be undone.`,
        submit: "Revoke",
        run: () => ask(`/people/keys/${key.id}`, { method: "DELETE" }),
      }), "danger")));
}

/** Projects by their names: the audit log has their ids, because names may change. */
function withNames(text) {
  return known.projects.reduce((done, { id, name }) => done.replaceAll(id, name), text);
}

function auditRow(entry) {
  const where = entry.address ? ` from ${entry.address}` : "";
  const what = entry.stream ? el("a", { href: at(`/streams/${encodeURIComponent(entry.stream)}`) }, `stream ${entry.stream.slice(0, 8)}`) : null;
  return el("li", {},
    el("time", { class: "when num", datetime: entry.at }, momentText(Date.parse(entry.at))),
    el("span", { class: "what", dir: "auto" },
      el("strong", {}, visible(entry.by)), ` (${visible(entry.via)}${where}): `, what, what ? " " : null, visible(withNames(entry.done))));
}

const ask_ = setUpDialog("ask", async () => {
  const reply = await asked.run();
  return () => {
    refresh();
    asked.after?.(reply);
  };
});

function question(what) {
  asked = what;
  setText(byId("ask-title"), what.title);
  setText(byId("ask-text"), what.text);
  setText(byId("ask-submit"), what.submit);
  byId("ask-submit").classList.toggle("danger", !what.overlap);
  setHidden(byId("ask-overlap-field"), !what.overlap);
  // The harmless choice has the focus: Enter alone removes nothing.
  ask_.open(byId("ask-dialog").querySelector(".cancel"));
}

function showSecret(title, text, secret) {
  setText(byId("secret-title"), title);
  setText(byId("secret-text"), text);
  setText(byId("secret"), secret);
  byId("secret-dialog").showModal();
  byId("secret-copy").focus();
}

function showKey({ id, key }) {
  showSecret(`Key ${id}`, "It is shown only now: copy it to where it is used. The server has only its hash.", key);
}

async function makeLink(user) {
  try {
    const { path } = await ask(`/people/users/${user.id}/link`, { method: "POST" });
    showSecret(`Login link for ${visible(user.name)}`, "Whoever opens it first within 15 minutes is logged in. It works once.", location.origin + at(path));
    refresh();
  } catch (error) {
    notify(error.message);
  }
}

const person = setUpDialog("person", async () => {
  const password = byId("person-password").value;
  const role = byId("person-role").value;
  const body = { name: byId("person-name").value, role, projects: role === "admin" ? null : personProjects.value };
  if (password) body.password = password;
  await ask(edited ? `/people/users/${edited.id}` : "/people/users", { method: edited ? "PATCH" : "POST", body });
  return refresh;
});

function openPerson(user) {
  edited = user;
  setText(byId("person-title"), user ? `Change ${visible(user.name)}` : "Add a person");
  setText(byId("person-password-label"), user ? "New password, if it changes" : "Password");
  setText(byId("person-hint"), user ? "At least 12 characters. A new one logs them out everywhere." : "At least 12 characters. Without one, they sign in by a login link.");
  byId("person-name").value = user?.name ?? "";
  byId("person-role").value = user?.role ?? "viewer";
  byId("person-password").value = "";
  personProjects.show(known.projects, user ? user.projects : null);
  showProjectsOfRole();
  person.open(byId("person-name"));
}

/** Administrators see all projects. */
function showProjectsOfRole() {
  setHidden(byId("person-projects"), byId("person-role").value === "admin");
}

const key = setUpDialog("key", async () => {
  const owner = byId("key-owner").value;
  const scope = byId("key-scope").value;
  const days = byId("key-days").value;
  const body = { scope, projects: scope === "admin" ? null : keyProjects.value, days: days ? Number(days) : null };
  body[owner === INSTRUMENT ? "instrument" : "user"] = owner === INSTRUMENT ? byId("key-instrument").value : owner;
  const made = await ask("/people/keys", { method: "POST", body });
  return () => {
    refresh();
    showKey(made);
  };
});

function openKey() {
  byId("key-owner").replaceChildren(
    el("option", { value: INSTRUMENT }, "an instrument"),
    ...known.users.map(({ name }) => el("option", { value: name }, visible(name))));
  byId("key-instrument").value = "";
  keyProjects.show(known.projects, null);
  showKeyFields();
  key.open(byId("key-owner"));
}

function showKeyFields() {
  const instrument = byId("key-owner").value === INSTRUMENT;
  setHidden(byId("key-instrument"), !instrument);
  setHidden(byId("key-instrument-label"), !instrument);
  setHidden(byId("key-projects"), byId("key-scope").value === "admin");
}

const own = setUpDialog("own", async () => {
  await ask("/session/password", { method: "POST", body: { old: byId("own-old").value, new: byId("own-new").value } });
  return () => notify("Your password is changed.");
});

async function start() {
  const session = await ask("/session").catch((error) => error);
  if (!session.ok) {
    if (session.status === 401) location.replace(`${at("/login")}?next=${encodeURIComponent(location.pathname)}`);
    else notify(session.message);
    return;
  }
  setText(byId("who"), `Logged in: ${visible(session.name)}`);
  setHidden(byId("own"), !session.person);
  byId("own-name").value = session.name;
  if (session.right === "admin") {
    await refresh(); // before it can be used: the dialogs show the projects
    setHidden(byId("admin"), false);
  } else if (!session.person) {
    setText(byId("problem"), "Only an administrator can change the settings.");
    setHidden(byId("problem"), false);
  }
}

setUpTheme();
byId("logout").addEventListener("click", logOut);
byId("add-person").addEventListener("click", () => openPerson(null));
byId("add-key").addEventListener("click", openKey);
byId("person-role").addEventListener("change", showProjectsOfRole);
byId("key-owner").addEventListener("change", showKeyFields);
byId("key-scope").addEventListener("change", showKeyFields);
byId("own-password").addEventListener("click", () => {
  byId("own-old").value = byId("own-new").value = "";
  own.open(byId("own-old"));
});
byId("secret-copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("secret").textContent);
    setText(byId("secret-copy"), "Copied");
    setTimeout(() => setText(byId("secret-copy"), "Copy"), 2000);
  } catch {
    getSelection().selectAllChildren(byId("secret")); // without https the browser refuses: Ctrl-C copies it
  }
});
byId("secret-dialog").addEventListener("close", () => setText(byId("secret"), ""));
start();
