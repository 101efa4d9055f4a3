// The login page: a key opens a session; the key itself stays nowhere.
import { ask } from "./api.js";
import { byId, say } from "./dom.js";

const form = byId("form");
const key = byId("key");
const button = form.querySelector("button");

/** Where to go then: a page of this server, whatever the address bar was made to say. */
function destination() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  try {
    const url = new URL(wanted, location.origin);
    return url.origin === location.origin ? url.pathname + url.search : "/";
  } catch {
    return "/";
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!key.value.trim()) {
    say(byId("problem"), "Enter a key.");
    key.focus();
    return;
  }
  button.disabled = true;
  try {
    await ask("/session", { method: "POST", body: { key: key.value } });
    key.value = "";
    location.replace(destination());
  } catch (error) {
    say(byId("problem"), error.message);
    key.setAttribute("aria-invalid", "true");
    key.select();
    key.focus();
  } finally {
    button.disabled = false;
  }
});

ask("/session").then(() => location.replace(destination()), () => {});
