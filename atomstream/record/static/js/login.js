// The login of the capture page: by the one-time link that opened it, or by the key of this recorder.
import { ask } from "/dashboard/static/js/api.js";
import { byId, setText } from "/dashboard/static/js/dom.js";

async function logIn(body) {
  try {
    await ask("/session", { method: "POST", body });
    location.replace("/");
  } catch (error) {
    setText(byId("problem"), error.message);
    byId("key").setAttribute("aria-invalid", "true");
    byId("key").focus();
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  if (key) logIn({ key });
});

// The token is behind the #, so that it is in no log.
const link = new URLSearchParams(location.hash.slice(1)).get("link");
if (link) {
  history.replaceState(null, "", location.pathname);
  logIn({ link });
}
