// Dialogs with a form: opening, the answer of the server, closing.
import { byId, setText } from "./dom.js";

/** `submit()` sends the form; the dialog closes unless it throws, whose message is then shown in `problem`. */
export function setUpDialog(name, submit) {
  const dialog = byId(`${name}-dialog`);
  const form = byId(`${name}-form`);
  const problem = byId(`${name}-problem`);
  for (const button of dialog.querySelectorAll(".cancel")) button.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    setText(problem, "");
    try {
      const after = await submit();
      dialog.close();
      after?.();
    } catch (error) {
      setText(problem, error.message);
    } finally {
      button.disabled = false;
    }
  });
  return {
    open(focused) {
      setText(problem, "");
      dialog.showModal();
      focused?.focus();
    },
  };
}
