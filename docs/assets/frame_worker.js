// Browsers start no Worker for a page that was opened from a folder (file:). The search needs one:
// here it runs in a hidden frame, with the two calls of a worker that it uses.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.started = new Promise((resolve) => {
        const script = this.inside.document.createElement("script");
        script.src = url;
        script.onload = resolve;
        this.inside.document.documentElement.append(script);
      });
    }

    async postMessage(data) {
      await this.started; // before that nothing listens
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }
  };
}
