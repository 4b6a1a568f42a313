// What the page does without the server: opacity, the divider between two models, downloads,
// and the window that moves over a picture.
document.addEventListener("input", (event) => {
  const answer = event.target.closest(".kf-answer");
  if (!answer) return;
  // Gradio writes the next answer over this one, attribute by attribute: so that the slider
  // comes back to where it begins, as the style does, its attribute has to differ by then.
  event.target.setAttribute("value", event.target.value);
  if (event.target.matches(".kf-opacity"))
    answer.style.setProperty("--opacity", event.target.value / 100);
  if (event.target.matches(".kf-cut"))
    answer.style.setProperty("--cut", `${event.target.value}%`);
});

// The overlay as it is seen, at the opacity of the slider, with the legend below.
document.addEventListener("click", (event) => {
  const link = event.target.closest(".kf-overlay");
  if (!link) return;
  const answer = link.closest(".kf-answer");
  const picture = (name) => answer.querySelector(name);
  const [photo, legend] = [picture(".kf-photo"), link.querySelector("img")];
  const labels = answer.querySelector(link.dataset.labels);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(photo.naturalWidth, legend.naturalWidth);
  canvas.height = photo.naturalHeight + legend.naturalHeight;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(photo, 0, 0);
  context.globalAlpha = picture(".kf-opacity").value / 100;
  context.drawImage(labels, 0, 0);
  context.globalAlpha = 1;
  context.drawImage(legend, 0, photo.naturalHeight);
  link.href = canvas.toDataURL("image/png");
});

function moveWindow(row, column) {
  const stage = document.querySelector(".kf-stage");
  if (!stage) return;
  const {style} = stage.querySelector(".kf-window");
  style.top = `${100 * row * stage.dataset.down}%`;
  style.left = `${100 * column * stage.dataset.right}%`;
}
