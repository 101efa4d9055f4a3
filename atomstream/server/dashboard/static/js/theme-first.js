// Runs before the first paint, so that a dark room never sees a white page.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("atomstream-theme"); } catch (_) { /* storage is off: dark it is */ }
  if (chosen === "light") document.documentElement.dataset.theme = "light";
})();
