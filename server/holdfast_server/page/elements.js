// Elements of index.html, and their text.
//
// Rule of this file: text is only ever text, and an element that has not changed is not touched: a reader would read it
// again, and a selection in it would be lost.

export const at = (id) => document.getElementById(id)

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text
}
