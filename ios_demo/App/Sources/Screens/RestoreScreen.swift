/// Pick or take a photo, restore it, look at both, save and share.

import ElirCore
import Foundation
import PhotosUI
import SwiftUI

struct RestoreScreen: View {
    @ObservedObject var model: AppModel
    @State private var item: PhotosPickerItem?
    @State private var usesCamera = false
    @State private var framing = Framing.square
    /// The photograph's file; nil: the bundle's own example.
    @State private var photo: Data?
    @State private var pair: Pair?

    /// What was restored, and what became of it.
    private struct Pair: Sendable {
        let before: CGImage
        let after: CGImage
        let file: URL
        let facts: String
    }

    var body: some View {
        NavigationStack {
            Form {
                if let pair {
                    Section {
                        CompareView(before: pair.before, after: pair.after)
                        Text(pair.facts).font(.footnote).foregroundStyle(.secondary)
                        Button("Save to Photos") { save(pair.file) }
                        ShareLink(item: pair.file)
                    }
                }
                Section("Photo") {
                    PhotosPicker(selection: $item, matching: .images) { Label("Choose a photo", systemImage: "photo") }
                    if CameraPicker.isAvailable {
                        Button { usesCamera = true } label: { Label("Take a photo", systemImage: "camera") }
                    }
                    if photo != nil {
                        Button("Use the bundle's example") { (photo, item) = (nil, nil) }
                        Picker("Restore", selection: $framing) {
                            Text("Centred square").tag(Framing.square)
                            Text("Whole photo, in tiles").tag(Framing.whole)
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
                        Button("Restore") { restore(bundle, choice) }.disabled(model.part != nil)
                    }
                }
                WorkSection(model: model)
            }
            .navigationTitle("ELIR")
            .onChange(of: item) { _, chosen in load(chosen) }
            .sheet(isPresented: $usesCamera) {
                CameraPicker { data in
                    usesCamera = false
                    if let data { photo = data }
                }
            }
        }
    }

    private func load(_ chosen: PhotosPickerItem?) {
        guard let chosen else { return }
        Task {
            photo = try? await chosen.loadTransferable(type: Data.self)
            if photo == nil { model.problem = "the photo cannot be loaded: check the network if it is in iCloud" }
        }
    }

    private func restore(_ bundle: ModelBundle, _ choice: Choice) {
        let (engine, units, seed, framing, photo) = (model.engine, model.units, model.seed, framing, photo)
        model.start { report in
            let given: Picture
            if let photo {
                given = try await engine.prepare(photo, for: bundle, framing: framing)
            } else {
                given = try bundle.goldenPicture(.input)
            }
            let start = ProcessInfo.processInfo.systemUptime
            let restored = try await engine.restore(
                given, with: choice, of: bundle, units: units, seed: seed, report: report)
            let seconds = ProcessInfo.processInfo.systemUptime - start
            guard let before = PhotoFile.image(of: given), let after = PhotoFile.image(of: restored) else {
                throw ElirError(.memory, "there is no memory to show the picture: use a smaller one")
            }
            let tiles = TileGrid(given, size: bundle.size).tiles
            return Pair(
                before: before, after: after, file: try PhotoFile.write(after, name: "restored.png"),
                facts: "\(given.width)×\(given.height) pixels, \(tiles) tiles, \(seconds.formatted(digits: 2)) s "
                    + "with loading, \(targetTitle(choice.artifact.target)) \(choice.artifact.precision)")
        } then: {
            pair = $0
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
