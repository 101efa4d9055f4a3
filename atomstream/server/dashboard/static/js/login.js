// The login page: a password, an API key or a login link opens a session. Nothing secret is stored in the browser.
import { ask, at } from "./api.js";
import { byId, setHidden, setText } from "./dom.js";

/** The page to open after login: always a page of this server. */
function destination() {
  const wanted = new URLSearchParams(location.search).get("next") ?? at("/");
  try {
    const url = new URL(wanted, location.origin);
    return url.origin === location.origin ? url.pathname + url.search : at("/");
  } catch {
    return at("/");
  }
}

/** A form that logs in with the values of its `fields`, all of which are needed. */
function setUpForm(form, fields, problem, missing) {
  const button = form.querySelector("button");
  const fail = (text, field) => {
    setText(problem, text);
    field.setAttribute("aria-invalid", "true");
    field.select();
    field.focus();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const empty = fields.find((field) => !field.value.trim());
    if (empty) {
      fail(missing, empty);
      return;
    }
    button.disabled = true;
    try {
      await ask("/session", { method: "POST", body: Object.fromEntries(fields.map((field) => [field.name, field.value])) });
      for (const field of fields) field.value = "";
      location.replace(destination());
    } catch (error) {
      fail(error.message, fields.at(-1));
    } finally {
      button.disabled = false;
    }
  });
}

/** Shows the form for people, or that for a key. */
function choose(person) {
  setHidden(byId("person"), !person);
  setHidden(byId("form"), person);
  setText(byId("other-way"), person ? "Use an API key instead" : "Use name and password instead");
  byId(person ? "name" : "key").focus();
}

/** Shows how people can sign in here. Who is logged in already goes on, unless `link` is to be used. */
async function showWays(link) {
  const { password, oidc, session } = await ask("/session/ways");
  if (session && !link) {
    location.replace(destination());
    return;
  }
  if (oidc) {
    setText(byId("oidc-link"), `Sign in with ${oidc}`);
    byId("oidc-link").href = `${at("/oidc/login")}?next=${encodeURIComponent(destination())}`;
    setHidden(byId("oidc"), false);
  }
  if (!password && !oidc) return;
  setText(byId("intro"), "Live RHEED results of this server.");
  if (password) {
    setHidden(byId("other"), false);
    choose(true);
  }
}

/** The token of a login link is behind the #, so that it is in no log of a server or a proxy. */
async function useLink(token) {
  history.replaceState(null, "", location.pathname + location.search);
  try {
    await ask("/session", { method: "POST", body: { link: token } });
    location.replace(destination());
  } catch (error) {
    setText(byId("link-problem"), error.message);
    setHidden(byId("link-problem"), false);
  }
}

setUpForm(byId("person"), [byId("name"), byId("password")], byId("person-problem"), "Enter name and password.");
setUpForm(byId("form"), [byId("key")], byId("problem"), "Enter a key.");
byId("other-way").addEventListener("click", () => choose(byId("person").hidden));
const link = new URLSearchParams(location.hash.slice(1)).get("link");
showWays(link).catch(() => {});
if (link) useLink(link);
