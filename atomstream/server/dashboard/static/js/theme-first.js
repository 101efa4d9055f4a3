// Sets the theme before the first paint, so that no white page flashes in a dark room.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("atomstream-theme"); } catch (_) { /* storage is disabled: dark theme */ }
  if (chosen === "light") document.documentElement.dataset.theme = "light";
})();
