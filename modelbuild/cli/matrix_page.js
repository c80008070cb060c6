document.querySelectorAll('th button').forEach((button, column) => {
  let up = false;
  button.addEventListener('click', () => {
    up = !up;
    const body = document.querySelector('tbody');
    const value = (row) => row.cells[column].textContent.trim();
    const unit = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
    const number = (text) => {
      const found = /^(-?[\d.]+(?:e[+-]?\d+)?)\s*([kMGT]?B)?/.exec(text.replaceAll(',', ''));
      return found ? parseFloat(found[1]) * (unit[found[2]] || 1) : NaN;
    };
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [number(value(a)), number(value(b))];
      const order = isNaN(x) && isNaN(y) ? value(a).localeCompare(value(b))
        : isNaN(x) ? 1 : isNaN(y) ? -1 : x - y;
      return up ? order : -order;
    });
    body.append(...rows);
    document.querySelectorAll('th').forEach((head) => head.removeAttribute('aria-sort'));
    button.parentElement.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  });
});
