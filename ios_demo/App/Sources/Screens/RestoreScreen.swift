/// Pick or take a photo, restore it, look at both, save and share.

import ElirApple
import ElirCore
import Foundation
import PhotosUI
import SwiftUI

struct RestoreScreen: View {
    @ObservedObject var model: AppModel
    @State private var item: PhotosPickerItem?
    @State private var usesCamera = false
    @State private var part = Part.faces
    @State private var found: Found?
    /// Numbers of the faces that are left alone.
    @State private var left: Set<Int> = []
    /// Whether the comparison is zoomed: nothing around it scrolls then.
    @State private var isZoomed = false

    /// What of a photograph is restored.
    private enum Part: String {
        case faces = "The faces, where they are"
        case square = "Centred square"
        case whole = "Whole photo, in tiles"
    }

    /// A photograph and its faces.
    private struct Found: Sendable {
        let photo: Picture
        let shown: CGImage
        let faces: [Face]
    }

    var body: some View {
        NavigationStack {
            Form {
                if let made = model.result {
                    Section {
                        CompareView(before: made.before, after: made.after, isZoomed: $isZoomed)
                            .id(made.id)
                        Text(made.kept.facts).font(.footnote).foregroundStyle(.secondary)
                        Button("Save to Photos") { save(made.kept.after) }
                        ShareLink(item: made.kept.after)
                    }
                }
                Section("Photo") {
                    if let waiting = model.waiting {
                        Text("A photo came while work was under way.")
                        Button("Open it") {
                            item = nil
                            model.open(waiting)
                        }
                        .disabled(model.part != nil)
                    }
                    PhotosPicker(selection: $item, matching: .images) { Label("Choose a photo", systemImage: "photo") }
                        .disabled(model.part != nil)
                    if CameraPicker.isAvailable {
                        Button {
                            usesCamera = true
                        } label: {
                            Label("Take a photo", systemImage: "camera")
                        }
                        .disabled(model.part != nil)
                    }
                    if model.photo != nil {
                        Button("Use the bundle's example") {
                            item = nil
                            model.open(nil)
                        }
                        .disabled(model.part != nil)
                        if let bundle = model.bundle {
                            Picker("Restore", selection: Binding(get: { chosen(bundle) }, set: { part = $0 })) {
                                ForEach(parts(bundle), id: \.self) { Text($0.rawValue).tag($0) }
                            }
                            if chosen(bundle) == .faces {
                                facesOfPhoto
                                if !model.backgrounds.isEmpty { backgrounds }
                            }
                        }
                    } else {
                        Text("The bundle's example will be restored.").foregroundStyle(.secondary)
                    }
                }
                ChoiceSection(model: model)
                if let bundle = model.bundle, let choices = model.choices, let choice = model.choice {
                    Section("Sampling") {
                        Stepper(
                            "Steps: \(choice.steps) of \(bundle.steps)",
                            value: Binding(get: { choice.steps }, set: { model.steps = $0 }), in: choices.steps)
                        Stepper("Seed of the noise: \(model.seed)", value: $model.seed, in: 0...9999)
                        if choice.steps < bundle.steps {
                            Text("Fewer steps stop underway: 0 shows the coarse estimate.").foregroundStyle(.secondary)
                        }
                        finish(bundle)
                        Button("Restore") { restore(bundle, choice) }.disabled(model.part != nil)
                    }
                }
                WorkSection(model: model)
            }
            .scrollDisabled(isZoomed)
            .navigationTitle("ELIR")
            .onChange(of: item) { _, chosen in load(chosen) }
            .onChange(of: model.photo) { _, _ in (found, left) = (nil, []) }
            .onChange(of: model.result?.id) { _, _ in isZoomed = false }
            .sheet(isPresented: $usesCamera) {
                CameraPicker { data in
                    usesCamera = false
                    if let data { model.open(data) }
                }
            }
        }
    }

    /// What of a photograph `bundle` restores, as far as it knows such pictures.
    private func parts(_ bundle: ModelBundle) -> [Part] {
        if bundle.task.domain != alignedFace { return [.square, .whole] }
        return bundle.findsFaces ? [.faces, .square] : [.square]
    }

    private func chosen(_ bundle: ModelBundle) -> Part {
        parts(bundle).contains(part) ? part : parts(bundle)[0]
    }

    @ViewBuilder private var facesOfPhoto: some View {
        if let found {
            if found.faces.isEmpty {
                Text(
                    model.background == nil
                        ? "No face is found in this photo: nothing is restored."
                        : "No face is found in this photo: all of it is restored as a background.")
            } else {
                FacesView(photo: found.shown, faces: found.faces, left: $left)
                Text("Tap a face to leave it alone.").font(.footnote).foregroundStyle(.secondary)
            }
        } else if let photo = model.photo {
            Button("Look for faces") { findFaces(photo) }.disabled(model.part != nil)
        }
    }

    private var backgrounds: some View {
        Picker("Around the faces", selection: $model.backgroundID) {
            Text("Left as it is").tag(String?.none)
            ForEach(model.backgrounds) { Text($0.task.title).tag(String?.some($0.id)) }
        }
    }

    /// What a person may want of the network's picture.
    @ViewBuilder private func finish(_ bundle: ModelBundle) -> some View {
        LabeledContent("Fidelity", value: Double(model.wishes.fidelity).formatted(digits: 2))
        Slider(value: $model.wishes.fidelity, in: 0...1, step: 0.05)
            .accessibilityLabel("Fidelity")
        Text("0: the sharpest picture; 1: the most likely one, which is smoother.")
            .font(.footnote).foregroundStyle(.secondary)
        if bundle.task.keepsColors {
            Toggle("Keep the photo's colours", isOn: $model.wishes.keepsColors)
        } else if bundle.task.keepsGrey {
            Toggle("Keep a grey photo grey", isOn: $model.wishes.keepsColors)
        }
    }

    private func findFaces(_ photo: Data) {
        let engine = model.engine
        model.start { _ in
            let (picture, faces) = try await engine.findFaces(in: photo)
            guard let shown = picture.image(in: PhotoFile.space(of: photo)) else {
                throw ElirError(.memory, "there is no memory to show the picture: use a smaller one")
            }
            return Found(photo: picture, shown: shown, faces: faces)
        } then: {
            if model.photo == photo { found = $0 }
        }
    }

    private func load(_ chosen: PhotosPickerItem?) {
        guard let chosen else { return }
        Task {
            let data = try? await chosen.loadTransferable(type: Data.self)
            guard item == chosen else { return }  // another was chosen meanwhile
            item = nil  // so that the same one can be chosen again
            if let data {
                model.open(data)
            } else {
                model.problem = "the photo cannot be loaded: check the network if it is in iCloud"
            }
        }
    }

    private func restore(_ bundle: ModelBundle, _ choice: Choice) {
        let (engine, units, seed, photo, part) = (model.engine, model.units, model.seed, model.photo, chosen(bundle))
        var faces: (photo: Picture, found: [Face], wanted: WantedFaces)?
        if let photo, part == .faces {
            guard let found else { return findFaces(photo) }
            if found.faces.count == left.count && model.background == nil {
                model.notice = "No face is left to restore: nothing is done."
                return
            }
            faces = (found.photo, found.faces, WantedFaces(left: left))
        }
        let (ofFaces, wishes, last) = (faces, model.wishes, model.last)
        let behind = faces == nil ? nil : model.background
        model.start("Restoring a photo") { report in
            let given: Picture
            if let ofFaces {
                given = ofFaces.photo
            } else if let photo {
                given = try await engine.prepare(photo, for: bundle, framing: part == .whole ? .whole : .square)
            } else {
                given = try bundle.goldenPicture(.input)
            }
            let start = ProcessInfo.processInfo.systemUptime
            let restored = try await engine.restore(
                given, faces: ofFaces.map { ($0.found, $0.wanted) }, with: choice, of: bundle, units: units, seed: seed,
                wishes: wishes, behind: behind, report: report)
            let seconds = ProcessInfo.processInfo.systemUptime - start
            var facts = [
                "\(given.width)×\(given.height) pixels, \(seconds.formatted(digits: 2)) s with loading, \(restored.title)"
            ]
            if ofFaces != nil {
                let done = restored.treated.filter(\.restored).count
                let sharp = restored.treated.filter { !$0.restored && $0.detail != nil }.count
                facts.append("\(done) of \(restored.treated.count) faces restored")
                if sharp > 0 { facts.append("\(sharp) left: as sharp as the model would make them") }
            } else {
                facts.append("\(TileGrid(given, size: bundle.size).tiles) tiles")
            }
            return try await RestoredPair.make(
                given, restored.picture, of: photo, facts: (facts + restored.passedOver).joined(separator: "\n"),
                keptBy: last)
        } then: {
            model.show($0)
        }
    }

    private func save(_ file: URL) {
        Task {
            do {
                try await PhotoFile.saveToLibrary(file)
                model.notice = "Saved to Photos."
            } catch {
                model.problem = error.localizedDescription
            }
        }
    }
}
