// Short messages at the top of the page.
import { byId, setHidden, setText } from "./dom.js";

const SHOWN_MS = 6000;
let hiding;

/** Shows a message for some seconds. */
export function notify(text) {
  const notice = byId("notice");
  setText(notice, text);
  setHidden(notice, false);
  clearTimeout(hiding);
  hiding = setTimeout(() => setHidden(notice, true), SHOWN_MS);
}
