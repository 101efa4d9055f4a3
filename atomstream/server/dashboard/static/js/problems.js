// What is wrong with the server or a stream: a full disk, damaged files.
import { at } from "./api.js";
import { byId, el, setHidden } from "./dom.js";
import { visible } from "./format.js";

const SHOWN = 20;

/** Shows the sentences at the top of the page; `{ text, href }` links to a stream. */
export function showProblems(problems) {
  const list = byId("problems");
  const more = problems.length - SHOWN;
  const shown = problems.slice(0, SHOWN);
  if (more > 0) shown.push({ text: `${more} more problems.` });
  const content = JSON.stringify(shown);
  if (list.dataset.content === content) return;
  list.dataset.content = content;
  list.replaceChildren(...shown.map(({ text, href }) => el("li", { dir: "auto" }, href ? el("a", { href }, visible(text)) : visible(text))));
  setHidden(list, shown.length === 0);
}

/** The sentences of the server's answer about all streams; `nameOf(id)` is the name of a listed stream. */
export function allProblems(answer, nameOf) {
  const ofStreams = Object.entries(answer.streams).flatMap(([id, texts]) => texts.map((text) => ({ text: `${nameOf(id) ?? id}: ${text}`, href: at(`/streams/${encodeURIComponent(id)}`) })));
  return [...answer.server.map((text) => ({ text })), ...ofStreams];
}
