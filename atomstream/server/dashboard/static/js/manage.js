// Rename, move, end and delete the stream: one dialog, which asks before anything is changed.
import { ask, at } from "./api.js";
import { byId, el, setHidden, setText } from "./dom.js";
import { visible } from "./format.js";
import { notify } from "./notifications.js";

const ACTIONS = {
  rename: { title: "Rename the stream", submit: "Rename" },
  move: { title: "Move the stream to another project", submit: "Move" },
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
    this.name.value = name;
    if (action === "move" && !(await this.fillProjects())) return;
    this.dialog.showModal();
    // The harmless choice has the focus: Enter alone deletes nothing.
    (action === "rename" ? this.name : action === "move" ? this.project : byId("manage-cancel")).focus();
  }

  async fillProjects() {
    try {
      const projects = await ask("/projects/");
      this.project.replaceChildren(el("option", { value: "" }, "No project"), ...projects.map(({ id, name }) => el("option", { value: id }, visible(name))));
      this.project.value = projects.find(({ name }) => name === this.info()?.project)?.id ?? "";
      return true;
    } catch (error) {
      notify(`The projects could not be loaded: ${error.message}`);
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
      await this.send();
      this.dialog.close();
      if (this.action === "delete") location.replace(at("/"));
      else this.changed();
    } catch (error) {
      setText(byId("manage-problem"), error.message);
    } finally {
      byId("manage-submit").disabled = false;
    }
  }

  send() {
    switch (this.action) {
      case "rename": return ask(this.path, { method: "PATCH", body: { name: this.name.value } });
      case "move": return ask(this.path, { method: "PATCH", body: { project_id: this.project.value || null } });
      case "end": return ask(`${this.path}/end`, { method: "POST" });
      default: return ask(this.path, { method: "DELETE" });
    }
  }
}
