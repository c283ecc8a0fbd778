/* What JupyterLab and Notebook 7 load: a module container written by hand. The work is in badge.js and model.js. */
(function () {
  const here = document.currentScript && document.currentScript.src;
  let scope;

  async function shared(name) {
    const versions = scope[name];
    const version = Object.keys(versions).sort().pop();
    return (await versions[version].get())();
  }

  async function load() {
    const { INotebookTracker } = await shared("@jupyterlab/notebook");
    const { activate } = await import(new URL("badge.js", here).href);
    return {
      __esModule: true,
      default: {
        id: "durable_nb:badge",
        description: "A badge by each cell's prompt that says what became of it.",
        autoStart: true,
        requires: [INotebookTracker],
        activate,
      },
    };
  }

  (window._JUPYTERLAB = window._JUPYTERLAB || {})["durable_nb"] = {
    init(shareScope) {
      scope = shareScope;
    },
    async get() {
      const found = await load();
      return () => found;
    },
  };
})();
