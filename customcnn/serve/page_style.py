"""How the page looks, in Gradio's own colours, so that a dark screen gets a dark page."""

STYLE = """
.gradio-container { max-width: 62rem !important; margin: 0 auto !important; }
.gradio-container .cc-head h1 { font-size: 1.6rem; line-height: 1.25; margin: .25rem 0 .5rem; font-weight: 600;
  overflow-wrap: anywhere; color: var(--body-text-color); }
.gradio-container .html-container { padding: 0 !important; }
.cc-head p, .cc-foot { color: var(--body-text-color); line-height: 1.55; margin: .5rem 0; overflow-wrap: anywhere; }
.cc-head a, .cc-foot a, .cc-sum a { color: var(--cc-link); text-decoration: underline; }
.gradio-container { --cc-link: #0b5cad; --cc-warn-paper: #fff3cd; --cc-warn-ink: #6b2a00; --cc-warn-line: #c2570c;
  --cc-bad: #a4133c; --cc-bar: #0072b2; --cc-faint: #52525b; }
.dark .gradio-container, .gradio-container.dark { --cc-link: #7fb9f2; --cc-warn-paper: #3a2a0a; --cc-warn-ink: #ffd9a3;
  --cc-warn-line: #e08a2e; --cc-bad: #ff9db3; --cc-bar: #56b4e9; --cc-faint: #b4b4bd; }
.cc-warn { background: var(--cc-warn-paper); color: var(--cc-warn-ink); border: 1px solid var(--cc-warn-line);
  border-left-width: .4rem; border-radius: .3rem; padding: .55rem .8rem; margin: .5rem 0; line-height: 1.45; }
.cc-warn ul { margin: 0; padding-left: 1.1rem; list-style: disc; }
.cc-warn small { display: block; font-size: .875em; }
.cc-faint { color: var(--cc-faint); margin: .5rem 0; }
.cc-sum { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline; margin: .25rem 0 .75rem;
  color: var(--body-text-color); overflow-wrap: anywhere; }
.cc-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.cc-card { border: 1px solid var(--border-color-primary); border-radius: .6rem; padding: .8rem; min-width: 0;
  background: var(--background-fill-secondary); color: var(--body-text-color); overflow-wrap: anywhere; }
.cc-pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.cc-pair.cc-one { grid-template-columns: minmax(0, 1fr); max-width: 50%; }
.cc-pair figure { margin: 0; min-width: 0; }
.cc-pair img, .cc-wait { width: 100%; height: auto; border-radius: .3rem; display: block; background: #000; margin: 0; }
.cc-wait { aspect-ratio: 1; background: var(--border-color-primary); }
.cc-pair figcaption { color: var(--cc-faint); font-size: .8125rem; line-height: 1.35; margin-top: .3rem; }
.gradio-container .cc-name { font-size: .9375rem; font-weight: 600; margin: .6rem 0 .2rem; color: var(--cc-faint); }
.cc-class { font-size: 1.5rem; font-weight: 600; line-height: 1.25; margin: 0 0 .4rem; }
.cc-class small { font-size: 1rem; font-weight: 400; color: var(--cc-faint); }
.cc-doubtful { font-weight: 400; color: var(--cc-faint); }
.cc-unsure { font-style: italic; }
.cc-bad { color: var(--cc-bad); margin: .2rem 0; line-height: 1.45; }
.cc-bars { margin: .4rem 0 0; display: grid; gap: .35rem; }
.cc-bars dt { font-size: .875rem; line-height: 1.3; }
.cc-bars dd { margin: 0; display: flex; gap: .6rem; align-items: center; }
.cc-chosen dt { font-weight: 600; }
.cc-track { flex: 1; height: .55rem; border-radius: .3rem; background: var(--border-color-primary); overflow: hidden; }
.cc-track > span { display: block; height: 100%; background: var(--cc-bar); }
.cc-number { font-variant-numeric: tabular-nums; font-size: .875rem; }
.cc-examples-title { font-weight: 600; margin: 0 0 -.5rem; color: var(--body-text-color); }
#examples { gap: .75rem; flex-wrap: wrap; }
#examples > * { flex: 1 1 7rem; min-width: 7rem !important; max-width: 10rem; gap: .4rem; }
#examples img { width: 100%; height: auto; border-radius: .4rem; display: block; background: #000; margin: 0; }
#examples button { min-width: 0; padding: .35rem .25rem; font-size: .875rem; }
.cc-foot { font-size: .875rem; color: var(--cc-faint); border-top: 1px solid var(--border-color-primary);
  padding-top: .75rem; margin-top: 1.5rem; }
@media (max-width: 480px) {
  .gradio-container .cc-head h1 { font-size: 1.3rem; }
  #examples > * { flex: 1 1 calc(33% - .75rem); min-width: 5.5rem !important; }
}
"""
