// The login page: an API key opens a session. The key is not stored in the browser.
import { ask, at } from "./api.js";
import { byId, setText } from "./dom.js";

const form = byId("form");
const key = byId("key");
const button = form.querySelector("button");

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

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!key.value.trim()) {
    setText(byId("problem"), "Enter a key.");
    key.focus();
    return;
  }
  button.disabled = true;
  try {
    await ask("/session", { method: "POST", body: { key: key.value } });
    key.value = "";
    location.replace(destination());
  } catch (error) {
    setText(byId("problem"), error.message);
    key.setAttribute("aria-invalid", "true");
    key.select();
    key.focus();
  } finally {
    button.disabled = false;
  }
});

ask("/session").then(() => location.replace(destination()), () => {});
