// Rename, move, end and delete the stream: one dialog, which asks before anything is changed.
import { ask, at } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { visible } from "./format.js";
import { notify } from "./notifications.js";

const ACTIONS = {
  rename: { title: "Rename the stream", submit: "Rename" },
  move: { title: "Move the stream", submit: "Move", text: "Frames, results and marks stay as they are. The project decides who can see the stream and which rule of retention applies to it. The sample decides with which growths it is compared and which signals of instruments are shown with its frames." },
  end: { title: "End the stream", submit: "End the stream", text: "For a stream that its client will not end. A chunk that arrives later is still stored." },
  delete: { title: "Delete the stream", submit: "Delete for ever", text: "Frames, results and marks are removed for ever; only a backup can bring them back. An upload that is arriving is refused." },
};

export class Manage {
  /** `info()` returns the stream's metadata, null before it was loaded; `changed()` is called after a change. */
  constructor(dataId, info, changed) {
    this.path = `/rheed/stream/${dataId}`;
    this.info = info;
    this.changed = changed;
    this.dialog = byId("manage-dialog");
    this.name = byId("manage-name");
    this.project = byId("manage-project");
    this.sample = byId("manage-sample");
    for (const action of Object.keys(ACTIONS)) byId(`stream-${action}`).addEventListener("click", () => this.open(action));
    byId("manage-cancel").addEventListener("click", () => this.dialog.close());
    byId("manage-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
  }

  async open(action) {
    const { title, submit, text } = ACTIONS[action];
    this.action = action;
    const name = this.info()?.name ?? "";
    setText(byId("manage-title"), action === "delete" ? `${title} “${visible(name)}”?` : title);
    setText(byId("manage-text"), text ?? "");
    setText(byId("manage-submit"), submit);
    setText(byId("manage-problem"), "");
    byId("manage-submit").classList.toggle("danger", action === "delete");
    setHidden(byId("manage-name-field"), action !== "rename");
    setHidden(byId("manage-project-field"), action !== "move");
    setHidden(byId("manage-sample-field"), action !== "move");
    this.name.value = name;
    if (action === "move" && !(await this.fillChoices())) return;
    this.dialog.showModal();
    // The harmless choice has the focus: Enter alone deletes nothing.
    (action === "rename" ? this.name : action === "move" ? this.project : byId("manage-cancel")).focus();
  }

  async fillChoices() {
    try {
      const [projects, samples] = await Promise.all([ask("/projects/"), ask("/physical_samples/")]);
      byId("manage-samples").replaceChildren(...samples.map(({ name }) => el("option", { value: name })));
      this.sample.value = this.info()?.sample ?? "";
      this.project.replaceChildren(el("option", { value: "" }, "No project"), ...projects.map(({ id, name }) => el("option", { value: id }, visible(name))));
      this.project.value = projects.find(({ name }) => name === this.info()?.project)?.id ?? "";
      this.before = { project: this.project.value, sample: this.sample.value };
      return true;
    } catch (error) {
      notify(`The projects and samples could not be loaded: ${error.message}`);
      return false;
    }
  }

  async run() {
    if (this.action === "rename" && !this.name.value.trim()) {
      setText(byId("manage-problem"), "The name is empty.");
      return;
    }
    byId("manage-submit").disabled = true;
    try {
      const reply = await this.send();
      this.dialog.close();
      if (reply?.changes?.length) notify(`The stream was ${reply.changes.map(visible).join(", ")}.`);
      if (this.action === "delete") location.replace(at("/"));
      else this.changed();
    } catch (error) {
      setText(byId("manage-problem"), error.message);
    } finally {
      byId("manage-submit").disabled = false;
    }
  }

  async move() {
    const sample = this.sample.value.trim();
    const body = {};
    if (this.project.value !== this.before.project) body.project_id = this.project.value || null;
    if (sample !== this.before.sample) Object.assign(body, sample ? { sample_name: sample } : { physical_sample_id: null });
    if (!Object.keys(body).length) throw new Error("The stream is there already: choose another project or sample.");
    return ask(this.path, { method: "PATCH", body });
  }

  send() {
    switch (this.action) {
      case "rename": return ask(this.path, { method: "PATCH", body: { name: this.name.value } });
      case "move": return this.move();
      case "end": return ask(`${this.path}/end`, { method: "POST" });
      default: return ask(this.path, { method: "DELETE" });
    }
  }
}
