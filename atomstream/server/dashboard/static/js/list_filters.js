// The filters above the list of streams: status, project, dates. The server applies them; the address keeps them.
import { ask } from "./api.js";
import { byId, el, setHidden } from "./dom.js";
import { visible } from "./format.js";

const NAMES = ["status", "project", "from", "to"];

export class ListFilters extends EventTarget {
  constructor() {
    super();
    const stored = new URLSearchParams(location.search);
    for (const name of NAMES) {
      const control = byId(`filter-${name}`);
      if (name !== "project") control.value = stored.get(name) ?? "";
      control.addEventListener("change", () => this.changed());
    }
    byId("filter-clear").addEventListener("click", () => {
      for (const name of NAMES) byId(`filter-${name}`).value = "";
      this.changed();
      byId("filter-status").focus();
    });
    this.project = stored.get("project") ?? "";
    this.show();
  }

  value(name) {
    return name === "project" && this.project ? this.project : byId(`filter-${name}`).value;
  }

  /** Fills the list of projects. */
  async load() {
    const projects = await ask("/projects/");
    byId("filter-project").append(...projects.map(({ id, name }) => el("option", { value: id }, visible(name))));
    if (this.project) byId("filter-project").value = this.project;
    this.project = "";
    setHidden(byId("filter-project-part"), projects.length === 0);
  }

  changed() {
    this.project = "";
    this.show();
    const query = new URLSearchParams(NAMES.map((name) => [name, this.value(name)]).filter(([, value]) => value));
    history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
    this.dispatchEvent(new Event("change"));
  }

  show() {
    setHidden(byId("filter-clear"), !this.isSet);
  }

  get isSet() {
    return NAMES.some((name) => this.value(name) !== "");
  }

  /** The filters as parameters of `/data_entries/`. Days are those of this computer. */
  get query() {
    const query = new URLSearchParams();
    if (this.value("status")) query.set("status", this.value("status"));
    if (this.value("project")) query.set("project_ids", this.value("project"));
    const [from, to] = ["from", "to"].map((name) => (this.value(name) ? new Date(`${this.value(name)}T00:00:00`) : null));
    if (from) query.set("upload_datetime_min", from.toISOString());
    if (to) query.set("upload_datetime_max", new Date(to.getFullYear(), to.getMonth(), to.getDate() + 1).toISOString());
    return query.toString();
  }
}
